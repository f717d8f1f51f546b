//! The kubelet replaces a projected service account token; the broker goes on with the new one.

use std::time::Duration;

use e2e::fake_entra::{Call, FakeEntra, Lifetime, service_account};
use mesh::Component;

use crate::{
    shop::Shop,
    world::{PATIENCE, World, world},
};

/// Tokens that are renewed every few seconds, while it lives.
struct ShortLife(&'static FakeEntra);

impl ShortLife {
    fn set(world: &'static World) -> Self {
        world.entra.set_lifetime(Lifetime { expires_in: 10, refresh_in: None });
        Self(&world.entra)
    }
}

impl Drop for ShortLife {
    fn drop(&mut self) {
        self.0.set_lifetime(Lifetime::default());
    }
}

#[test]
fn the_broker_presents_the_token_that_the_kubelet_has_put_in_place_of_the_first() {
    let world = world();
    let _alone = world.mesh.alone().unwrap();
    let _short = ShortLife::set(world);
    let shop = Shop::new("rotation").open();
    let subject = service_account(shop.namespace, "orders");
    let issued_at = |call: &Call| {
        let presented = call.presented.as_ref().filter(|_| call.issued.is_some())?;
        presented.issued_at.filter(|_| call.subject() == Some(&subject))
    };
    let first = world.entra.calls_of_subject(&subject).iter().find_map(issued_at).unwrap();

    // A kubelet that starts remembers no token: it asks the API server for new ones, and puts them
    // into the volumes of the pods that run.
    world.mesh.stop(Component::Kubelet).unwrap();
    world.mesh.start(Component::Kubelet).unwrap();
    let later = |call: &Call| issued_at(call).is_some_and(|issued| issued > first);
    assert!(world.entra.wait_for_call(PATIENCE, later), "the first token goes on being presented");

    // From then on the old one is not seen again.
    let calls = world.entra.calls_of_subject(&subject);
    let times: Vec<_> = calls.iter().filter_map(issued_at).collect();
    assert!(times.is_sorted(), "{times:?}");
    let expected = Duration::from_secs(3600);
    for presented in calls.iter().filter_map(|call| call.presented.as_ref()) {
        let life = presented.expires_at.unwrap() - presented.issued_at.unwrap();
        assert_eq!(Duration::from_secs(life), expected, "the life that the template asks for");
    }
    let pod = world.mesh.get(shop.namespace, &["pod", &shop.pod]).unwrap();
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let broker = statuses.iter().find(|status| status["name"] == "token-broker").unwrap();
    assert_eq!(broker["restartCount"], 0);
}
