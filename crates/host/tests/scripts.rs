//! Tests of the shell scripts that set up a server. `scripts/test-deploy` tests them on one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap()
}

struct Done {
    code: Option<i32>,
    output: String,
    errors: String,
}

fn run(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    Done {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `secrets export` or `import` of the folder, with the bundle as a file.
fn secrets(verb: &str, folder: &Path, passphrase: &Path, bundle: &Path, option: &[&str]) -> Done {
    let script = deploy().join("host/secrets");
    let mut command = Command::new("bash");
    command
        .arg(script)
        .arg(verb)
        .arg("--folder")
        .arg(folder)
        .arg("--passphrase-file")
        .arg(passphrase);
    command.args(option);
    if verb == "export" {
        command.stdout(fs::File::create(bundle).unwrap()).stderr(Stdio::piped());
    } else {
        command.stdin(fs::File::open(bundle).unwrap());
    }
    run(&mut command)
}

#[test]
fn import_over_other_secrets_writes_nothing_and_fails_unless_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (lost, new, bundle, passphrase) =
        (path("lost"), path("new"), path("bundle"), path("phrase"));
    for (folder, value) in [(&lost, "of the lost server"), (&new, "generated")] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("backup_passphrase"), value).unwrap();
    }
    fs::write(lost.join("admin_key"), "only there").unwrap();
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let done = secrets("export", &lost, &passphrase, &bundle, &[]);
    assert_eq!(done.code, Some(0), "{}", done.errors);

    let done = secrets("import", &new, &passphrase, &bundle, &[]);
    assert_eq!(done.code, Some(1), "{}", done.errors);
    assert!(
        done.errors.contains("nothing was written") && done.errors.contains("--replace"),
        "{}",
        done.errors
    );
    assert_eq!(fs::read_to_string(new.join("backup_passphrase")).unwrap(), "generated");
    assert!(!new.join("admin_key").exists());

    let done = secrets("import", &new, &passphrase, &bundle, &["--replace"]);
    assert_eq!(done.code, Some(0), "{}", done.errors);
    assert_eq!(fs::read_to_string(new.join("backup_passphrase")).unwrap(), "of the lost server");
}

/// `deploy.sh` with an `ssh` that notes the commands for the server, and writes the files that they send.
struct Laptop {
    folder: tempfile::TempDir,
}

impl Laptop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(
            "ssh",
            "#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$last\" >> \"$LAPTOP/commands\"\ncase $last in\n\
             *mktemp*) mkdir -p \"$LAPTOP/server\"; echo \"$LAPTOP/server\" ;;\n\
             *'cat > '*) sh -c \"${last#sudo -n }\" ;;\n*is-active*) exit 1 ;;\nesac\n",
        );
        write(
            "getent",
            "#!/bin/sh\ncase $2 in\ngo.example.com|203.0.113.7) echo '203.0.113.7 STREAM x' ;;\n\
             six.example.com) echo '203.0.113.7 STREAM x'; echo '2001:db8::7 STREAM x' ;;\n\
             else.example.com) echo '203.0.113.9 STREAM x' ;;\n*) exit 2 ;;\nesac\n",
        );
        write("phrase", "correct horse battery staple\n");
        write("key.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHk ops\n");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn deploy(&self, arguments: &[&str]) -> Done {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(deploy().join("deploy.sh")).args(arguments).stdin(Stdio::null());
        command.env("PATH", path).env("LAPTOP", self.folder.path());
        command.env("LINNET_KNOWN_HOSTS", self.path("known_hosts"));
        command.env("LINNET_PASSPHRASE_FILE", self.path("phrase"));
        run(&mut command)
    }

    fn commands(&self) -> String {
        fs::read_to_string(self.path("commands")).unwrap_or_default()
    }
}

#[test]
fn deploy_passes_replace_to_the_import_and_refuses_other_words() {
    let laptop = Laptop::new();
    let done = laptop.deploy(&["secrets", "import", "go.example.com", "--replace"]);
    assert_eq!(done.code, Some(0), "{}", done.errors);
    assert!(laptop.commands().contains("/passphrase --replace\n"), "{}", laptop.commands());
    for words in [["import", "--overwrite"], ["export", "--replace"]] {
        let done = laptop.deploy(&["secrets", words[0], "go.example.com", words[1]]);
        assert_eq!(done.code, Some(64), "{}", done.errors);
        assert!(done.errors.contains("unknown option"), "{}", done.errors);
    }
}

const INIT: [&str; 7] = [
    "init",
    "root@go.example.com",
    "--domain",
    "go.example.com",
    "--email",
    "ops@example.com",
    "--dns-later",
];

#[test]
fn empty_deploy_key_reaches_the_server_as_an_empty_file() {
    let laptop = Laptop::new();
    let key = laptop.path("key.pub").display().to_string();
    let arguments = [&INIT[..], &["--operator-keys", &key, "--deploy-key", ""]].concat();
    let done = laptop.deploy(&arguments);
    assert_eq!(done.code, Some(0), "{} {}", done.output, done.errors);
    assert_eq!(fs::read_to_string(laptop.path("server/deploy.pub")).unwrap(), "");
    assert!(laptop.commands().contains("'--deploy-key'"), "{}", laptop.commands());
    // Both parts of the script arrive as one.
    let script = fs::read_to_string(laptop.path("server/init.sh")).unwrap();
    assert!(script.contains("\nno_keys() {\n"), "{script}");
    assert!(
        Command::new("bash")
            .arg("-n")
            .arg(laptop.path("server/init.sh"))
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn bundle_has_the_commands_of_the_runbooks_and_what_they_source() {
    let dockerfile = fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let copied: Vec<&str> = dockerfile
        .lines()
        .find(|line| line.starts_with("COPY scripts/") && line.ends_with(" /bundle/scripts/"))
        .map(|line| line.split_whitespace().filter(|word| word.starts_with("scripts/")).collect())
        .unwrap();
    assert!(copied.contains(&"scripts/oncall"), "{copied:?}");
    for script in &copied {
        let text = fs::read_to_string(deploy().join("..").join(script)).unwrap();
        let sourced = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("# shellcheck source="))
            .filter(|name| *name != "/dev/null");
        for name in sourced {
            assert!(copied.contains(&name), "{script} sources {name}, which the bundle lacks");
        }
    }
}

/// The part of init.sh that reads `host.json`, from a file with the text.
fn read_host_json(text: &str) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.json");
    fs::write(&file, text).unwrap();
    let script = fs::read_to_string(deploy().join("host/init.sh")).unwrap();
    let (_, part) = script.split_once("# Settings that the operator has added").unwrap();
    let (part, _) = part.split_once("# --- How changes are made").unwrap();
    let part = part.replace("/etc/linnet/host.json", &file.display().to_string());
    let script = format!(
        "set -euo pipefail\ndie() {{ printf '%s\\n' \"$1\" >&2; exit \"$2\"; }}\n#{part}\nprintf '%s\\n' \"$present\""
    );
    run(Command::new("bash").arg("-c").arg(script))
}

#[test]
fn init_reads_settings_and_refuses_a_line_that_is_none() {
    let done = read_host_json(
        "{ \"domain\": \"go.example.com\", \"tls\": true,\n  \"profiles\": [ \"a\", \"b\" ],\n \"warm_seconds\" : 600 }\n",
    );
    assert_eq!(done.code, Some(0), "{}", done.errors);
    assert_eq!(
        done.output.lines().collect::<Vec<_>>(),
        [
            "\"domain\": \"go.example.com\"",
            "\"tls\": true",
            "\"profiles\": [\"a\", \"b\"]",
            "\"warm_seconds\": 600"
        ]
    );
    for text in [
        "{\n  \"acme_directory\": \"staging\"\n  \"domain\": \"x\"\n}",
        "{ \"tls\": yes }",
        "{ tls: true }",
    ] {
        let done = read_host_json(text);
        assert_eq!(done.code, Some(69), "{text}: {}", done.output);
        assert!(done.errors.contains("is not valid at"), "{}", done.errors);
    }
}

#[test]
fn domain_must_lead_to_the_server_by_ipv4_unless_a_proxy_is_in_front() {
    let laptop = Laptop::new();
    let key = laptop.path("key.pub").display().to_string();
    let init = |domain: &str, more: &[&str]| {
        let all = ["init", "root@203.0.113.7", "--domain", domain, "--email", "ops@example.com"];
        laptop.deploy(&[&all[..], &["--operator-keys", &key], more].concat())
    };
    for (domain, text) in [
        ("none.example.com", "has no address in DNS"),
        ("else.example.com", "leads to 203.0.113.9, and the server is 203.0.113.7"),
        ("six.example.com", "has the AAAA record 2001:db8::7"),
    ] {
        let done = init(domain, &[]);
        assert_eq!(done.code, Some(69), "{}", done.errors);
        assert!(done.errors.contains(text), "{}", done.errors);
    }
    assert_eq!(init("go.example.com", &[]).code, Some(0));
    assert_eq!(init("else.example.com", &["--tls", "off"]).code, Some(0));
}

#[test]
fn agent_with_too_many_keys_is_named() {
    let laptop = Laptop::new();
    let ssh =
        "#!/bin/sh\necho 'Received disconnect: Too many authentication failures' >&2\nexit 255\n";
    fs::write(laptop.path("ssh"), ssh).unwrap();
    let done = laptop.deploy(&["status", "go.example.com"]);
    assert_eq!(done.code, Some(69), "{}", done.errors);
    assert!(done.errors.contains("LINNET_SSH_KEY"), "{}", done.errors);
}

#[test]
fn words_of_a_release_are_checked_before_they_reach_the_server() {
    let laptop = Laptop::new();
    let done = laptop.deploy(&["release", "go.example.com", "--restore", "--to=now; id"]);
    assert_eq!(done.code, Some(64), "{}", done.errors);
    assert!(laptop.commands().is_empty(), "{}", laptop.commands());
}

#[test]
fn images_that_the_disk_of_the_server_cannot_hold_are_not_sent() {
    let laptop = Laptop::new();
    let write = |name: &str, text: &str| {
        fs::write(laptop.path(name), text).unwrap();
        fs::set_permissions(laptop.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(
        "docker",
        "#!/bin/sh\ncase $* in\n*.Id*) echo sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef ;;\n\
         *.Size*) echo 52428800; echo 52428800 ;;\n*save*) echo SENT >> \"$LAPTOP/commands\" ;;\nesac\n",
    );
    let release = |free: &str| {
        write(
            "ssh",
            &format!(
                "#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$last\" >> \"$LAPTOP/commands\"\ncase $last in\n\
                 *'image inspect --format ok'*) exit 1 ;;\n*'df --output'*) printf 'Avail\\n  {free}\\n' ;;\n\
                 *'docker load'*) cat >/dev/null ;;\nesac\n"
            ),
        );
        laptop.deploy(&["release", "go.example.com"])
    };
    let done = release("355");
    assert_eq!(done.code, Some(69), "{}", done.errors);
    assert!(
        done.errors.contains("355 MiB of disk free, and the images need 356"),
        "{}",
        done.errors
    );
    assert!(!laptop.commands().contains("SENT"), "{}", laptop.commands());
    let done = release("356");
    assert_eq!(done.code, Some(0), "{}", done.errors);
    assert!(laptop.commands().contains("SENT"), "{}", laptop.commands());
}

#[test]
fn program_whose_reader_is_gone_ends_with_its_own_code() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_linnet-host"));
    command.arg("help").stdout(writer.try_clone().unwrap()).stderr(writer);
    // A panic would be 101.
    assert_eq!(command.status().unwrap().code(), Some(64));
}

#[test]
fn oncall_uses_the_files_with_which_the_containers_were_made() {
    let laptop = Laptop::new();
    let oncall = deploy().join("../scripts/oncall").canonicalize().unwrap();
    let files = |services: &str, driver: &str| {
        let path = laptop.path("docker");
        let text = format!(
            "#!/bin/sh\ncase $* in\n*' config') printf '%s\\n' \"$@\" ;;\ncompose*) echo id ;;\ninspect*) echo {driver} ;;\n\
             *) for name in {services}; do case $* in *service=$name*) echo id ;; esac; done ;;\nesac\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", laptop.folder.path().display(), std::env::var("PATH").unwrap());
        let done = run(Command::new("bash")
            .arg(&oncall)
            .args(["compose", "config"])
            .env("PATH", path)
            .env("RUN_DIR", laptop.path("none")));
        assert_eq!(done.code, Some(0), "{}", done.errors);
        let names = done.output.lines().filter_map(|line| line.strip_suffix(".yaml"));
        names.filter_map(|path| path.rsplit('/').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(files("nginx", "local"), ["compose"]);
    assert_eq!(files("nginx acme backup", "local"), ["compose", "compose.tls", "compose.backup"]);
    let all = [
        "compose",
        "compose.tls",
        "compose.backup",
        "compose.logs",
        "compose.tls.logs",
        "compose.backup.logs",
    ];
    assert_eq!(files("nginx acme backup", "fluentd"), all);
}
