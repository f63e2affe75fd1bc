//! The verbs of the program. The key of the deployment pipeline may use a part of them, and its command never reaches a
//! shell: it is split at blanks and compared with fixed words.

use crate::{analysis::Analysis, error::HostError};

/// A verb with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Prints what runs and what is open.
    Status,
    /// Prints the same as JSON.
    StatusJson,
    /// Deploys images.
    Deploy(Source, Manner),
    /// Continues an interrupted deployment.
    Resume,
    /// Returns to the release before.
    Rollback,
    /// Follows the running deployment until its end.
    Follow,
    /// Prints what differs from what was deployed.
    Check,
    /// Takes a backup now.
    Backup,
    /// Restores the database from the backups, with the options of `deploy/host/restore`.
    Restore(Vec<String>),
    /// Loads images from the standard input.
    Load,
    /// Generates missing secrets.
    Secrets,
    /// Recreates containers that a release does not: nginx, stores, monitoring.
    Apply,
    /// Watches a canary in a cluster, and ends with the verdict of its step.
    Verdict(Analysis),
    /// Stops all containers, after the repository has all changes.
    Stop,
    /// Runs in the unit: a deployment, a resumption or a rollback.
    Run(Task),
}

/// Digests or ids of a release's images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    /// The gateway's.
    pub gateway: String,
    /// The shortener's.
    pub shortener: String,
    /// The bundle's.
    pub bundle: String,
    /// The ACME client's.
    pub acme: Option<String>,
    /// The backup sidecar's.
    pub backup: Option<String>,
}

/// Where the images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Digests in the server's registry.
    Registry(Digests),
    /// Ids of images that were loaded.
    Loaded(Digests),
}

/// How to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manner {
    /// Replaces the color that serves, which fails requests meanwhile.
    pub in_place: bool,
    /// For a server without a release: restores the database first, with these options of `deploy/host/restore`.
    pub restore: Option<Vec<String>>,
}

/// The task of the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A new deployment, by the id of its record.
    Deploy(String),
    /// The open deployment.
    Resume,
    /// The way back.
    Rollback,
    /// A restore, with the options of `deploy/host/restore`.
    Restore(Vec<String>),
}

const USAGE: &str = "usage: linnet-host status [--json] | deploy [--in-place | --restore [--to=TIME]] gateway=DIGEST \
                     shortener=DIGEST bundle=DIGEST [acme=DIGEST] [backup=DIGEST] | resume | rollback | follow | check | backup; a DIGEST \
                     is sha256: and 64 hexadecimal digits";

/// Reads the command of a restricted key (`SSH_ORIGINAL_COMMAND`). It cannot load images, because a loaded bundle could
/// contain any configuration; what it deploys comes from the registry.
pub fn parse_restricted(command: &str) -> Result<Verb, HostError> {
    let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
    let words = match words.as_slice() {
        ["linnet-host", rest @ ..] => rest,
        all => all,
    };
    match parse(words)? {
        Verb::Load
        | Verb::Restore(_)
        | Verb::Secrets
        | Verb::Apply
        | Verb::Verdict(_)
        | Verb::Stop
        | Verb::Run(_)
        | Verb::Deploy(Source::Loaded(_), _)
        | Verb::Deploy(_, Manner { restore: Some(_), .. }) => {
            Err(HostError::Usage("this key may not do that; use the operator's key".to_owned()))
        }
        verb => Ok(verb),
    }
}

/// Reads the arguments of the operator.
pub fn parse(words: &[&str]) -> Result<Verb, HostError> {
    let usage = || HostError::Usage(USAGE.to_owned());
    Ok(match words {
        ["status"] => Verb::Status,
        ["status", "--json"] => Verb::StatusJson,
        ["resume"] => Verb::Resume,
        ["rollback"] => Verb::Rollback,
        ["follow"] => Verb::Follow,
        ["check"] => Verb::Check,
        ["backup"] => Verb::Backup,
        ["restore", options @ ..] => Verb::Restore(owned(options)),
        ["load"] => Verb::Load,
        ["secrets"] => Verb::Secrets,
        ["apply"] => Verb::Apply,
        ["stop"] => Verb::Stop,
        ["run", "resume"] => Verb::Run(Task::Resume),
        ["run", "rollback"] => Verb::Run(Task::Rollback),
        ["run", "restore", options @ ..] => Verb::Run(Task::Restore(owned(options))),
        ["run", "deploy", id] if is_record_id(id) => Verb::Run(Task::Deploy((*id).to_owned())),
        ["verdict", options @ ..] => Verb::Verdict(Analysis::parse(options)?),
        ["deploy", rest @ ..] => deploy(rest)?,
        _ => return Err(usage()),
    })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn deploy(words: &[&str]) -> Result<Verb, HostError> {
    let usage = || HostError::Usage(USAGE.to_owned());
    let (mut is_loaded, mut manner) = (false, Manner::default());
    let mut digests = Digests::default();
    for word in words {
        match word.split_once('=') {
            None if *word == "--loaded" => is_loaded = true,
            None if *word == "--in-place" => manner.in_place = true,
            None if *word == "--restore" => {
                manner.restore.get_or_insert_default();
            }
            None if *word == "--without-newest" => {
                manner.restore.get_or_insert_default().push((*word).to_owned());
            }
            Some((name @ ("--to" | "--timeline"), value)) if is_plain(value) => {
                let options = manner.restore.get_or_insert_default();
                options.extend([name.to_owned(), value.to_owned()]);
            }
            Some((name, digest)) if is_digest(digest) => {
                let place = match name {
                    "gateway" => &mut digests.gateway,
                    "shortener" => &mut digests.shortener,
                    "bundle" => &mut digests.bundle,
                    "acme" => digests.acme.get_or_insert_default(),
                    "backup" => digests.backup.get_or_insert_default(),
                    _ => return Err(usage()),
                };
                digest.clone_into(place);
            }
            _ => return Err(usage()),
        }
    }
    if [&digests.gateway, &digests.shortener, &digests.bundle].into_iter().any(String::is_empty) {
        return Err(usage());
    }
    let source = if is_loaded { Source::Loaded(digests) } else { Source::Registry(digests) };
    if manner.in_place && manner.restore.is_some() {
        return Err(usage());
    }
    Ok(Verb::Deploy(source, manner))
}

/// Whether the text is `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Whether the text can be the value of an option of `deploy/host/restore`: a time or a number.
fn is_plain(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.+-".contains(&byte))
}

/// Whether the text can be the name of a record and of a folder.
pub fn is_record_id(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn three(digest: &str) -> String {
        format!("gateway={D} shortener={D} bundle={digest}")
    }

    #[test]
    fn release_restores_only_for_the_operator() {
        let words = |options: &str| format!("deploy {options} {}", three(D));
        let parsed = |options: &str| {
            let words = words(options);
            parse(&words.split_whitespace().collect::<Vec<_>>())
        };
        let Ok(Verb::Deploy(_, manner)) = parsed("--loaded --restore --to=2026-11-27T12:00:00Z")
        else {
            panic!("a deployment");
        };
        assert_eq!(
            manner.restore,
            Some(vec!["--to".to_owned(), "2026-11-27T12:00:00Z".to_owned()])
        );
        assert!(parsed("--restore --to=a;b").is_err() && parsed("--restore --in-place").is_err());
        assert!(parse_restricted(&words("--restore")).is_err());
        assert!(parse_restricted(&words("--to=2026-11-27T12:00:00Z")).is_err());
    }

    #[test]
    fn restricted_key_deploys_digests_of_the_registry() {
        let digests = Digests {
            gateway: D.to_owned(),
            shortener: D.to_owned(),
            bundle: D.to_owned(),
            acme: None,
            backup: None,
        };
        assert_eq!(
            parse_restricted(&format!("linnet-host deploy  {}", three(D))).unwrap(),
            Verb::Deploy(Source::Registry(digests.clone()), Manner::default())
        );
        let digests = Digests { acme: Some(D.to_owned()), ..digests };
        assert_eq!(
            parse_restricted(&format!("deploy --in-place {} acme={D}", three(D))).unwrap(),
            Verb::Deploy(Source::Registry(digests), Manner { in_place: true, restore: None })
        );
        for (word, verb) in
            [("status", Verb::Status), ("rollback", Verb::Rollback), ("backup", Verb::Backup)]
        {
            assert_eq!(parse_restricted(word).unwrap(), verb);
        }
    }

    #[test]
    fn restricted_key_can_neither_load_images_nor_run_anything_else() {
        for command in [
            "load",
            "secrets",
            "restore",
            "restore --delete-first",
            "run restore",
            "apply",
            "stop",
            "run resume",
            &format!("deploy --loaded {}", three(D)),
            "",
            "id",
            "sh -c id",
            "verdict --color=green --weight=10",
            "status; id",
            "status\nid",
            "status && id",
            "status $(id)",
            "/usr/local/sbin/linnet-host status",
            "scp -t /tmp",
        ] {
            let error = parse_restricted(command).unwrap_err();
            assert_eq!(error.exit_code(), 64, "{command}");
        }
    }

    #[test]
    fn digests_have_one_spelling() {
        for wrong in [
            D.to_uppercase().as_str(),
            &D[..70],
            &format!("{D}0"),
            &D[7..],
            &D.replace("sha256", "sha512"),
            &format!("{D};id"),
        ] {
            assert!(!is_digest(wrong), "{wrong}");
            let command = format!("deploy {}", three(wrong));
            assert!(parse_restricted(&command).is_err(), "{command}");
        }
        assert!(parse_restricted(&format!("deploy gateway={D} shortener={D}")).is_err());
        assert!(parse_restricted(&format!("deploy {} other={D}", three(D))).is_err());
    }

    #[test]
    fn names_of_records_cannot_leave_their_folder() {
        assert!(is_record_id("20261127-161307-v1.2.3"));
        for wrong in ["", ".", "..", ".hidden", "a/b", "a b", "a\n"] {
            assert!(!is_record_id(wrong), "{wrong:?}");
        }
    }
}
