use super::*;

fn voters(url: &str) -> VoterTarget {
    match RedisTarget::parse(url) {
        Ok(RedisTarget::Voters(target)) => target,
        other => panic!("{url}: {other:?}"),
    }
}

fn named(name: &str) -> VoterKind {
    VoterKind::Sentinels { name: name.to_owned() }
}

#[test]
fn sentinel_url_has_hosts_credentials_name_and_database() {
    let target = voters(
        "redis+sentinel://user:p%40ss%2Fword@s1:26380,S2.example.com,10.0.0.3:1/my%20master/3",
    );
    let address = |host: &str, port| (host.to_owned(), port);
    let expected =
        [address("s1", 26_380), address("s2.example.com", 26_379), address("10.0.0.3", 1)];
    assert_eq!(target.voters, expected);
    assert_eq!((&target.kind, target.has_tls), (&named("my master"), false));
    assert_eq!(target.redis.username(), Some("user"));
    assert_eq!(target.redis.password(), Some("p@ss/word"));
    assert_eq!(target.redis.db(), 3);
}

#[test]
fn sentinel_url_may_leave_out_credentials_ports_and_database() {
    for url in ["redis+sentinel://s1/m", "redis+sentinel://s1/m/"] {
        let target = voters(url);
        assert_eq!(target.voters, [("s1".to_owned(), 26_379)]);
        assert_eq!((target.redis.username(), target.redis.password()), (None, None));
        assert_eq!((target.redis.db(), &target.kind), (0, &named("m")));
    }
    let password_only = voters("redis+sentinel://:pw@s1/m");
    let redis = &password_only.redis;
    assert_eq!((redis.username(), redis.password()), (None, Some("pw")));
    // The last `@` ends the credentials, and the first `:` ends the user.
    let special = voters("redis+sentinel://u:a@b:c@s1/m");
    assert_eq!(special.redis.password(), Some("a@b:c"));
}

#[test]
fn ipv6_sentinels_are_written_in_brackets() {
    let target = voters("redis+sentinel://[::1]:26380,[2001:db8::2]/m");
    let expected = [("::1".to_owned(), 26_380), ("2001:db8::2".to_owned(), 26_379)];
    assert_eq!(target.voters, expected);
    for host in ["::1", "[::1", "[::1]26379", "[::1]:", "[zz]:1", "[]:1", "2001:db8::2:26379"] {
        let error = RedisTarget::parse(&format!("redis+sentinel://{host}/m")).unwrap_err();
        assert!(matches!(error, RedisUrlError::Host(_)), "{host}: {error}");
    }
}

#[test]
fn tls_applies_to_sentinels_and_masters() {
    let target = voters("rediss+sentinel://u:p@s1/m/2");
    let sentinel = target.voter(&target.voters[0], ("su", "sp")).unwrap();
    assert!(matches!(sentinel.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
    assert_eq!(sentinel.redis_settings().username(), Some("su"));
    assert_eq!(sentinel.redis_settings().db(), 0, "a sentinel has no databases");
    let master = target.master(&("10.0.0.1".into(), 6_379)).unwrap();
    assert!(matches!(master.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
    assert_eq!((master.redis_settings().db(), master.redis_settings().password()), (2, Some("p")));
    let plain = voters("redis+sentinel://s1/m");
    let sentinel = plain.voter(&plain.voters[0], ("", "")).unwrap();
    assert!(matches!(sentinel.addr(), ConnectionAddr::Tcp(..)));
    assert_eq!(sentinel.redis_settings().password(), None);
}

#[test]
fn invalid_sentinel_urls_are_rejected_with_the_reason() {
    for (rest, reason) in [
        ("s1:26379", "master's name"),
        ("s1:26379/", "master's name"),
        ("s1//0", "master's name"),
        ("/m", "is empty"),
        ("s1,,s2/m", "is empty"),
        ("s1,/m", "is empty"),
        ("u:p@/m", "is empty"),
        ("s1:0/m", "`s1:0`"),
        ("s1:port/m", "`s1:port`"),
        ("s1:70000/m", "`s1:70000`"),
        ("s 1/m", "`s 1`"),
        ("s1/m/x", "database"),
        ("s1/m/-1", "database"),
        ("s1/m/0/1", "nothing after"),
        ("s1/m?db=1", "no query"),
        ("s1/m#insecure", "no query"),
        ("s1,S1:26379/m", "listed twice"),
        ("%ff:p@s1/m", "percent-encoded"),
        ("u:secret/x@s1/m", "a / or @"),
    ] {
        for scheme in ["redis+sentinel://", "rediss+sentinel://"] {
            let error = RedisTarget::parse(&format!("{scheme}{rest}")).unwrap_err().to_string();
            assert!(error.contains(reason), "{rest}: {error}");
        }
    }
    let secret = RedisTarget::parse("redis+sentinel://u:secret@s1").unwrap_err().to_string();
    assert!(!secret.contains("secret"), "{secret}");
}

#[test]
fn other_schemes_are_read_as_before() {
    for url in ["redis://127.0.0.1:6379/0", "rediss://u:p@[::1]:6380/1", "unix:///run/redis"] {
        assert!(matches!(RedisTarget::parse(url), Ok(RedisTarget::Server(_))), "{url}");
    }
    for url in ["http://h", "redis+clusters://h:1", "redis+sentinel:/s1/m", ""] {
        assert!(matches!(RedisTarget::parse(url), Err(RedisUrlError::Server(_))), "{url}");
    }
}

#[test]
fn cluster_url_has_nodes_and_credentials_that_all_nodes_share() {
    let target = voters("rediss+cluster://user:p%40ss@n1,N2.example.com:7000,[::1]/");
    let address = |host: &str, port| (host.to_owned(), port);
    let expected = [address("n1", 6_379), address("n2.example.com", 7_000), address("::1", 6_379)];
    assert_eq!(target.voters, expected);
    assert_eq!((&target.kind, target.has_tls), (&VoterKind::Nodes, true));
    let node = target.voter(&target.voters[1], ("ignored", "ignored")).unwrap();
    assert!(matches!(node.addr(), ConnectionAddr::TcpTls { port: 7_000, insecure: false, .. }));
    let login = node.redis_settings();
    assert_eq!((login.username(), login.password(), login.db()), (Some("user"), Some("p@ss"), 0));
    let plain = voters("redis+cluster://n1:7000");
    assert_eq!((plain.voters.len(), plain.has_tls, plain.redis.password()), (1, false, None));
}

#[test]
fn invalid_cluster_urls_are_rejected_with_the_reason() {
    for (rest, reason) in [
        ("", "is empty"),
        ("n1,,n2", "is empty"),
        ("n1/0", "no databases"),
        ("n1/mymaster", "no name"),
        ("n1?db=1", "no query"),
        ("n1,N1:6379", "listed twice"),
        ("n1:0", "`n1:0`"),
        ("::1", "`::1`"),
        ("u:secret/x@n1", "a / or @"),
    ] {
        for scheme in ["redis+cluster://", "rediss+cluster://"] {
            let error = RedisTarget::parse(&format!("{scheme}{rest}")).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{rest}: {error}");
        }
    }
}

#[test]
fn only_clusters_have_names_with_a_hash_tag() {
    for (url, layout) in [
        ("redis://h:1/0", KeyLayout::Server),
        ("redis+sentinel://s1/m", KeyLayout::Server),
        ("redis+cluster://n1", KeyLayout::Cluster),
        ("rediss+cluster://n1", KeyLayout::Cluster),
    ] {
        assert_eq!(key_layout(url), layout, "{url}");
    }
}
