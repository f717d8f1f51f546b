//! From `helm install` and one annotation to an application that answers only to whom it should.

use e2e::client::Request;
use serde_json::Value;

use crate::shop::Shop;

#[test]
fn an_unchanged_application_answers_401_without_a_token_and_200_with_one() {
    let shop = Shop::new("install").open();
    assert_eq!(shop.call(&Request::get("/orders/7")).status, 401);
    assert_eq!(shop.seen(), Vec::<Value>::new());
    let answer = shop.call(&Request::get("/orders/7").bearer(&shop.world.token()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let headers = &answer.json()["headers"];
    println!("{headers:#}");
}
