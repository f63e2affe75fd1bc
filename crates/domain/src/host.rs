//! Host names and addresses that settings and bans name, and the form in which hosts are compared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest host name, in bytes (RFC 1035, section 2.3.4).
const MAX_BYTES: usize = 253;
/// The longest part of a host name between dots, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// Why a host name or address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a host name or address of letters, digits, \"-\" and \"_\", at most {MAX_BYTES} bytes and \
     {MAX_LABEL_BYTES} between dots, without scheme, port, path or wildcard: {0:?}"
)]
pub struct HostError(String);

/// A host in the form that is compared: lower case, punycode, no trailing dot. An IPv4 address that is written as an
/// IPv6 address is the IPv4 address. The SQL function `has_banned_host` does the same.
pub(crate) fn canonical_host(host: &Host<&str>) -> String {
    match host {
        Host::Ipv6(address) => match embedded_v4(*address) {
            Some(address) => address.to_string(),
            None => host.to_string(),
        },
        Host::Domain(_) | Host::Ipv4(_) => host.to_string().trim_end_matches('.').to_owned(),
    }
}

/// The IPv4 address in a mapped (`::ffff:0:0/96`), translated (`64:ff9b::/96`) or compatible (`::/96`) address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = address.segments();
    let is_embedded = match prefix {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => true,
        // `::` and `::1` are not IPv4 addresses.
        [0, 0, 0, 0, 0, 0] => high != 0,
        _ => false,
    };
    is_embedded.then(|| (u32::from(high) << 16 | u32::from(low)).into())
}

/// The spellings of a canonical host in accepted targets: the host, and the IPv6 addresses that contain an IPv4 address.
pub fn host_spellings(host: &str) -> Vec<String> {
    let mut spellings = vec![host.to_owned()];
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        let [a, b, c, d] = address.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        let addresses = [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        ];
        let embedding = addresses.into_iter().filter(|other| embedded_v4(*other) == Some(address));
        // Not as `Ipv6Addr` prints an address: targets have no dots in it.
        spellings.extend(embedding.map(|other| Host::<&str>::Ipv6(other).to_string()));
    }
    spellings
}

/// Whether a canonical host is the machine on which it is resolved. A connection to an unspecified address goes there
/// too.
pub(crate) fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.octets()[0] == 0,
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unspecified(),
        Err(_) => {
            host == "localhost"
                || host.ends_with(".localhost")
                || host == "localhost.localdomain"
                || matches!(host, "ip6-localhost" | "ip6-loopback")
        }
    }
}

/// The canonical form of a host name or address that is given alone, as in `own_hosts` and in bans: lower case,
/// punycode, no trailing dot, brackets around an IPv6 address. It is stricter than the parser of targets, because a
/// separator, quote or variable in a list of hosts makes a name that matches no target.
pub fn host_name(text: &str) -> Result<String, HostError> {
    let refused = || HostError(text.chars().take(MAX_BYTES).collect());
    // An IPv6 address needs no brackets here.
    let host = match text.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    let has_other_part = host.chars().any(|c| "/\\?#@*%".contains(c) || c.is_whitespace());
    if host.starts_with('.') || has_other_part || (!is_address && host.contains(':')) {
        return Err(refused());
    }
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| refused())?;
    let host = canonical_host(&url.host().ok_or_else(refused)?);
    // The rest of `https://go.example.com` in a list that was split at `:`.
    let is_scheme = matches!(host.as_str(), "http" | "https");
    let is_name = host.len() <= MAX_BYTES && host.split('.').all(is_label);
    if is_scheme || !(is_name || host.starts_with('[')) || text.contains("..") {
        return Err(refused());
    }
    Ok(host)
}

/// Whether the text is a part of a host name in lower case. DNS names of services have underscores.
fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// The canonical host of an origin, which [`host_name`] must accept.
pub fn base_host(base_url: &str) -> Result<String, String> {
    let url = Url::parse(base_url).map_err(|error| format!("{base_url}: {error}"))?;
    let host = url.host_str().ok_or_else(|| format!("{base_url}: no host"))?;
    if url.path() != "/" {
        return Err(format!("{base_url}: has a path"));
    }
    host_name(host).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetPolicy;

    #[test]
    fn must_04_own_hosts_that_protect_nothing_are_refused() {
        let new = |host: &str| {
            TargetPolicy::new(&["https".into()], "https://lnt.example", &[host.to_owned()])
        };
        for bad in [
            "https://go.example.com",
            "http://x",
            "//go.example.com",
            "go.example.com/",
            "go.example.com/a",
            "go.example.com:443",
            "*.example.com",
            ".example.com",
            "example..com",
            "example.com..",
            "2..",
            "user@go.example.com",
            "a b",
            " go.example.com",
            "go.example.com?",
            "go.example.com#x",
            "",
            ".",
            "a\\b",
            "[::1",
            "[::1]:80",
            "go%2eexample",
        ] {
            assert!(new(bad).is_err(), "{bad:?}");
        }
        for good in [
            "go.example.com",
            "GO.example.com.",
            "bücher.example",
            "localhost",
            "192.0.2.1",
            "::1",
            "[::1]",
        ] {
            assert!(new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn must_04_own_hosts_and_bans_are_names_of_dns() {
        let label = "a".repeat(63);
        let longest = [label.as_str(), &label, &label, &"b".repeat(61)].join(".");
        for bad in [
            "go.example.com;www.example.com",
            "phish.example;",
            "evil4.example,evil5.example",
            "\"go.example.com\"",
            "'go.example.com'",
            "$HOST",
            "${PUBLIC_HOST}",
            "{{host}}",
            "(x)",
            "a=b",
            "a&b",
            "a|b.example",
            "a+b.example",
            "a~b",
            "`host`",
            "!example.com",
            "http",
            "https",
            "HTTPS.",
            "。example",
            "a。。b",
            &format!("a{label}.example"),
            &format!("{longest}b"),
        ] {
            assert!(host_name(bad).is_err(), "{bad:?}");
            let base = format!("http://{bad}");
            assert!(TargetPolicy::new(&["https".into()], &base, &[]).is_err(), "{base:?}");
        }
        assert!(base_host("http://lnt.test;x").is_err());
        assert!(base_host("http://lnt.test:99999").is_err());
        assert!(base_host("http://lnt.test\\x").is_err());
        for good in [
            "_dmarc.example.com",
            "a_b.example",
            "a--b.example",
            "http.example",
            "intranet",
            &format!("{label}.example"),
            &longest,
        ] {
            assert_eq!(host_name(good).as_deref(), Ok(good));
            assert_eq!(base_host(&format!("http://{good}:8080")).as_deref(), Ok(good));
        }
        for (given, canonical) in [
            ("ＧＯ.example。com", "go.example.com"),
            ("::FFFF:192.0.2.7", "192.0.2.7"),
            ("[64:ff9b::c000:207]", "192.0.2.7"),
            ("3221225991", "192.0.2.7"),
            ("2001:DB8:0::7", "[2001:db8::7]"),
        ] {
            assert_eq!(host_name(given).as_deref(), Ok(canonical), "{given}");
        }
    }

    #[test]
    fn targets_stay_as_permissive_as_browsers() {
        let policy = TargetPolicy::new(&["http".into()], "http://lnt.example", &[]).unwrap();
        for target in ["http://a;b.example/", "http://$x/", "http://a=b/", "http://https/"] {
            assert_eq!(policy.parse(target).unwrap().as_str(), target);
        }
    }

    #[test]
    fn spellings_are_those_of_targets() {
        assert_eq!(host_spellings("evil.example"), ["evil.example"]);
        assert_eq!(host_spellings("[2001:db8::7]"), ["[2001:db8::7]"]);
        let policy = TargetPolicy::new(&["http".into()], "http://lnt.example", &[]).unwrap();
        for (host, count) in [
            ("192.0.2.7", 4),
            ("203.0.113.5", 4),
            ("0.0.1.2", 3),
            ("0.1.0.0", 4),
            ("8.0.0.0", 4),
            ("0.0.0.0", 3),
        ] {
            let spellings = host_spellings(host);
            assert_eq!(spellings.len(), count, "{spellings:?}");
            for spelling in spellings {
                let target = format!("http://{spelling}/");
                assert_eq!(policy.parse(&target).unwrap().as_str(), target);
                assert_eq!(host_name(&spelling).as_deref(), Ok(host), "{spelling}");
            }
        }
    }
}
