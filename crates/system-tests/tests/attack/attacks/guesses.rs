//! Guesses of codes and of keys, from many addresses.

use linnet_system_tests::Client;
use rand::{RngExt as _, distr::Alphanumeric};
use std::net::IpAddr;

use crate::arena::{Arena, Tally, attacker, for_each};

fn random_text(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

/// Codes that belong to no link: 100 from each address, which is more than the budget of an address.
pub(crate) async fn random_codes(arena: &Arena) -> String {
    let tally = Tally::default();
    let target = arena.target();
    for_each(arena.scale(1_000, 100), 40, |number| {
        let tally = tally.clone();
        async move {
            let client = Client::new(target).from_address(IpAddr::V4(attacker(20, number)));
            for _ in 0..100 {
                let path = format!("/{}", random_text(7));
                match client.get(&path).try_send().await {
                    Ok(response) => tally.add(response.status.to_string()),
                    Err(_) => tally.add("closed"),
                }
            }
        }
    })
    .await;
    tally.text()
}

/// Keys of the right form that do not exist.
pub(crate) async fn unknown_keys(arena: &Arena) -> String {
    let tally = Tally::default();
    let target = arena.target();
    for_each(arena.scale(500, 50), 40, |number| {
        let tally = tally.clone();
        async move {
            let client = Client::new(target).from_address(IpAddr::V4(attacker(30, number)));
            for _ in 0..100 {
                let client =
                    client.with_key(&format!("lnt_{}_{}", random_text(8), random_text(43)));
                match client.get("/api/v1/urls").try_send().await {
                    Ok(response) => tally.add(response.status.to_string()),
                    Err(_) => tally.add("closed"),
                }
            }
        }
    })
    .await;
    tally.text()
}
