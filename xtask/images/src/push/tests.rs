use tempfile::TempDir;

use super::{
    fake::{Fake, Kind},
    *,
};

fn password(password: &str) -> Login {
    Login::Password { user: "user".to_owned(), password: password.to_owned() }
}

/// A layout with an index of one image, and an artifact about that image.
fn layout() -> (TempDir, Layout, Index) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    let add =
        |manifest: &Manifest| layout.add(oci::MANIFEST, &oci::json(manifest).unwrap()).unwrap();
    let config = layout.add(oci::CONFIG, b"{}").unwrap();
    let layer = layout.add("text/plain", b"layer").unwrap();
    let image = add(&Manifest::new(config.clone(), vec![layer]));
    let mut about = Manifest::new(config, Vec::new());
    about.subject = Some(image.clone());
    let mut about = add(&about);
    about.artifact_type = Some("a/b".to_owned());
    let index = oci::json(&Index::new(vec![image])).unwrap();
    let mut named = layout.add(oci::INDEX, &index).unwrap();
    named.annotations.insert(oci::REFERENCE.to_owned(), "some/image:1".to_owned());
    (folder, layout, Index::new(vec![about, named]))
}

fn push(fake: &Fake, login: Login) -> Result<()> {
    let (_folder, layout, index) = layout();
    all(&layout, &index, &fake.address, login)
}

fn error(kind: Kind, login: Login) -> String {
    format!("{:#}", push(&Fake::start(kind), login).unwrap_err())
}

fn count(fake: &Fake, request: &str) -> usize {
    fake.requests().iter().filter(|one| one.starts_with(request)).count()
}

#[test]
fn everything_is_pushed_with_one_token_for_the_repository() {
    let fake = Fake::start(Kind { lists_artifacts: true, ..Kind::default() });
    push(&fake, password("password")).unwrap();
    let (_folder, _layout, index) = layout();
    let manifests = fake.manifests();
    assert!(manifests.contains(&"team/some/image 1".to_owned()), "{manifests:?}");
    for pushed in &index.manifests {
        let expected = format!("team/some/image {}", pushed.digest);
        assert!(manifests.contains(&expected), "{expected}: {manifests:?}");
    }
    assert!(!manifests.iter().any(|name| name.contains("sha256-")), "{manifests:?}");
    assert_eq!(count(&fake, "GET /token"), 1);
}

#[test]
fn a_second_push_sends_no_blob_again() {
    let fake = Fake::start(Kind::default());
    push(&fake, password("password")).unwrap();
    let uploads = count(&fake, "POST ");
    assert_eq!(uploads, 2);
    push(&fake, password("password")).unwrap();
    assert_eq!(count(&fake, "POST "), uploads);
}

#[test]
fn where_the_registry_keeps_no_list_of_artifacts_a_tag_is_it() {
    let fake = Fake::start(Kind::default());
    push(&fake, password("password")).unwrap();
    let lists = fake.manifests().iter().filter(|name| name.contains(" sha256-")).count();
    assert_eq!(lists, 1);
}

#[test]
fn an_identity_token_is_changed_for_an_access_token() {
    let fake = Fake::start(Kind::default());
    push(&fake, Login::Identity("identity".to_owned())).unwrap();
    assert_eq!(count(&fake, "POST /token"), 1);
}

#[test]
fn a_refused_login_is_an_error_that_names_the_user_and_not_the_password() {
    let refused = error(Kind::default(), password("hidden"));
    assert!(refused.contains("as user: incorrect username"), "{refused}");
    assert!(!refused.contains("hidden"), "{refused}");
    let refused = error(Kind::default(), Login::Identity("hidden".to_owned()));
    assert!(refused.contains("stored identity token") && !refused.contains("hidden"), "{refused}");
    let refused = error(Kind::default(), Login::None);
    assert!(refused.contains("docker login"), "{refused}");
}

#[test]
fn a_registry_that_serves_something_else_fails_the_push() {
    let lied = error(Kind { lies: true, ..Kind::default() }, password("password"));
    assert!(lied.contains("the registry serves sha256:"), "{lied}");
}

#[test]
fn a_login_is_not_sent_in_plain_to_another_host() {
    let other = Fake::start(Kind::default());
    let realm = format!("http://{}/token", other.address.host);
    let refused = error(Kind { realm: Some(realm), ..Kind::default() }, password("password"));
    assert!(refused.contains("not reached by TLS"), "{refused}");
    assert!(other.requests().is_empty());
}

#[test]
fn a_list_of_artifacts_keeps_what_others_put_there() {
    let artifact = |digest: &str| Descriptor {
        media_type: oci::MANIFEST.to_owned(),
        digest: digest.to_owned(),
        artifact_type: Some("a/b".to_owned()),
        ..Descriptor::default()
    };
    let first = extended(None, &artifact("sha256:1")).unwrap();
    let bytes = oci::json(&first).unwrap();
    let second = extended(Some(&bytes), &artifact("sha256:2")).unwrap();
    let bytes = oci::json(&second).unwrap();
    let again = extended(Some(&bytes), &artifact("sha256:2")).unwrap();
    assert_eq!(again.manifests, [artifact("sha256:1"), artifact("sha256:2")]);
}
