//! From `helm install` and one annotation to an application that answers only to whom it should.

use std::time::Instant;

use e2e::{client::Request, fake_entra::sample};
use serde_json::Value;

use crate::{shop::Shop, world::world};

#[test]
fn an_unchanged_application_answers_401_without_a_token_and_200_with_one() {
    let _shared = world().mesh.shared().unwrap();
    let begun = Instant::now();
    let shop = Shop::new("install").open();
    let refused = shop.call(&Request::get("/orders/7"));
    println!("from helm install to the first 401: {:.1} s", begun.elapsed().as_secs_f32());
    assert_eq!(refused.status, 401, "{}", refused.text());
    assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")));
    assert_eq!(shop.seen(), Vec::<Value>::new());

    let forged = Request::get("/orders/7")
        .bearer(&shop.world.token())
        .header("x-entra-object-id", "somebody")
        .header("x-entra-permit", "mine");
    let answer = shop.call(&forged);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = shop.seen();
    let request = seen.iter().find(|event| event["event"] == "request").expect("one request");
    let text = request.to_string();
    let lines = request["headers"].as_array().unwrap();
    let of = |name: &str| -> Vec<&str> {
        let named = lines.iter().filter(|line| line[0] == name);
        named.map(|line| line[1].as_str().unwrap()).collect()
    };
    assert_eq!(of("x-entra-tenant-id"), [sample::TENANT], "{text}");
    assert_eq!(of("x-entra-client-id"), [sample::TILL], "{text}");
    let object = of("x-entra-object-id");
    assert!(object.len() == 1 && object != ["somebody"], "{text}");
    assert_eq!(of("authorization"), [""; 0], "{text}");
    assert_eq!(of("x-entra-permit"), [""; 0], "{text}");
}
