//! The limits of nginx count IPv6 addresses by /64, with a second budget for each /48.

use linnet_system_tests::{Stack, raw, stack::Builder};

/// A burst of `n` lets `n` + 1 requests pass at once. The rates give nothing back during the test.
const RATE: &str = "1r/m";

fn builder() -> Builder {
    Stack::builder().nginx_env("LINNET_NGINX_TRUSTED_PROXIES", "127.0.0.1")
}

/// How many of the requests from these addresses pass the limits.
async fn passed(stack: &Stack, path: &str, addresses: &[String]) -> usize {
    let mut passed = 0;
    for address in addresses {
        let header = format!("X-Forwarded-For: {address}");
        let response = raw::get(stack.client().address(), path.as_bytes(), &[&header]).await;
        passed += usize::from(response.status != Some(429));
    }
    passed
}

fn within_64(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}::{n:x}:{n:x}")).collect()
}

fn within_48(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}:{n:x}::1")).collect()
}

#[tokio::test]
async fn must_12_must_26_addresses_of_one_subscriber_share_a_budget_in_nginx() {
    for (path, kind) in [("/api/v1/urls", "API"), ("/no-such-code", "RESOLVE")] {
        let stack = builder()
            .nginx_env(&format!("LINNET_NGINX_{kind}_RATE"), RATE)
            .nginx_env(&format!("LINNET_NGINX_{kind}_BURST"), 3)
            .nginx_env(&format!("LINNET_NGINX_{kind}_SITE_BURST"), 1_000)
            .start()
            .await;
        let first = within_64("2001:db8:0:1", 10);
        assert_eq!(passed(&stack, path, &first).await, 4, "{path}: ten addresses of one /64");
        assert_eq!(passed(&stack, path, &within_64("2001:db8:0:2", 10)).await, 4, "another /64");
        assert_eq!(passed(&stack, path, &first).await, 0, "the budget is used up");
        // An IPv4 address that is written as IPv6 has the budget of the IPv4 address, and not that of a /64.
        let mapped: Vec<_> = (1..=3).map(|_| "::ffff:192.0.2.1".to_owned()).collect();
        assert_eq!(passed(&stack, path, &mapped).await, 3);
        assert_eq!(passed(&stack, path, &vec!["192.0.2.1".to_owned(); 5]).await, 1);
        assert_eq!(passed(&stack, path, &vec!["::ffff:192.0.2.2".to_owned(); 5]).await, 4);
    }
}

#[tokio::test]
async fn must_12_must_26_subscribers_of_one_site_share_a_second_budget_in_nginx() {
    for (path, kind) in [("/api/v1/urls", "API"), ("/no-such-code", "RESOLVE")] {
        let stack = builder()
            .nginx_env(&format!("LINNET_NGINX_{kind}_RATE"), "1000r/s")
            .nginx_env(&format!("LINNET_NGINX_{kind}_BURST"), 1_000)
            .nginx_env(&format!("LINNET_NGINX_{kind}_SITE_RATE"), RATE)
            .nginx_env(&format!("LINNET_NGINX_{kind}_SITE_BURST"), 5)
            .start()
            .await;
        assert_eq!(passed(&stack, path, &within_48("2001:db8:1", 20)).await, 6, "{path}");
        assert_eq!(passed(&stack, path, &within_48("2001:db8:2", 20)).await, 6, "another /48");
        assert_eq!(passed(&stack, path, &within_48("2001:db8:1", 5)).await, 0, "it is used up");
        // IPv4 addresses have no site.
        let addresses: Vec<_> = (1..=20).map(|n| format!("192.0.2.{n}")).collect();
        assert_eq!(passed(&stack, path, &addresses).await, 20);
    }
}
