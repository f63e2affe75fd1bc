//! Checks before a deployment, each with its own sentence.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{
    command::run,
    compose::CONFIG_SECONDS,
    docker,
    error::HostError,
    files, paths,
    record::{Record, Way},
    state::{self, State},
};

const MIB: u64 = 1 << 20;
/// The limits of both processes of a color, if the Compose files do not say.
const COLOR_MIB: u64 = 144;

/// Checks memory, disk, secrets, ports and images.
pub fn before(state: &State, record: &Record) -> Result<(), HostError> {
    settings()?;
    secrets(Path::new(paths::SECRETS))?;
    disk(state)?;
    if matches!(record.way, Way::Canary | Way::Return) {
        memory(state, record)?;
    }
    if record.way == Way::First {
        ports(state)?;
    }
    for image in record.images.all() {
        if !docker::has_image(image) {
            return Err(HostError::Refused(format!(
                "the image {image} is missing; run `deploy.sh release` again"
            )));
        }
    }
    Ok(())
}

/// The operator's settings for Compose.
pub fn settings() -> Result<(), HostError> {
    state::settings()?
        .problems
        .into_iter()
        .next()
        .map_or(Ok(()), |text| Err(HostError::Refused(text)))
}

/// Generates the secrets that are missing, with the script of the release. Existing ones are kept.
pub fn generate_secrets(id: &str) -> Result<(), HostError> {
    let script = format!("{}/{id}/scripts/compose-secrets", paths::RELEASES);
    run("env", &[&format!("LINNET_SECRETS={}", paths::SECRETS), "bash", &script], 60).map(drop)
}

/// Only root may enter the folder. Files are readable for all, because containers get them with their owner and mode.
fn secrets(folder: &Path) -> Result<(), HostError> {
    let failed = |error| HostError::File(folder.to_owned(), error);
    let metadata = fs::metadata(folder).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode != 0o700 || metadata.uid() != 0 {
        return Err(HostError::Refused(format!(
            "{0} has the mode {mode:o} and the owner {1} instead of 700 and root; correct it with `chown root {0} && chmod \
             700 {0}`, and replace the secrets if others could read them",
            folder.display(),
            metadata.uid()
        )));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let metadata = fs::metadata(&path).map_err(|error| HostError::File(path.clone(), error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o222 & !0o200 != 0 {
            return Err(HostError::Refused(format!(
                "others may write {0} (mode {mode:o}); correct it with `chmod 444 {0}`",
                path.display()
            )));
        }
        // The administrator's key is for people, and all others are for containers.
        if mode & 0o004 == 0 && path.file_name().is_some_and(|name| name != "admin_key") {
            return Err(HostError::Refused(format!(
                "containers cannot read {0} (mode {mode:o}); correct it with `chmod 444 {0}`",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Checks that the reserve of the settings is free where Docker has images and volumes.
pub fn disk(state: &State) -> Result<(), HostError> {
    let text = run("df", &["--output=avail", "--block-size=1M", "/var/lib/docker"], 10)?;
    let free: u64 = text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    let needed = state.config.disk_reserve_mib;
    if free < needed {
        return Err(HostError::Refused(format!(
            "only {free} MiB of disk are free and {needed} are needed; free some (`df -h`, `docker system df -v`), or use a \
             larger disk"
        )));
    }
    Ok(())
}

fn memory(state: &State, record: &Record) -> Result<(), HostError> {
    let text = files::read("/proc/meminfo")?.unwrap_or_default();
    let free = available_kib(&text).unwrap_or(0) / 1024;
    let needed = color_mib(state, record) + state.config.memory_reserve_mib;
    if free >= needed {
        return Ok(());
    }
    // A rollback has no options.
    let way_out = match record.way {
        Way::Return => {
            "stop what else uses memory, or deploy the images of the release before with `--in-place`, which"
        }
        _ => "use a larger server, or `--in-place`, which",
    };
    Err(HostError::Refused(format!(
        "only {free} MiB of memory are free and a second color needs {needed}; {way_out} fails requests for some seconds"
    )))
}

fn available_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory limits of a color, in MiB.
fn color_mib(state: &State, record: &Record) -> u64 {
    let value =
        state.compose(&record.id).and_then(|compose| compose.configuration()).unwrap_or_default();
    let limits: u64 = record
        .color
        .services()
        .iter()
        .filter_map(|service| {
            let limit = value.pointer(&format!("/services/{service}/mem_limit"))?;
            limit.as_u64().or_else(|| limit.as_str()?.parse().ok())
        })
        .sum();
    if limits == 0 { COLOR_MIB } else { limits.div_ceil(MIB) }
}

/// Before the first release, no other program may have nginx's ports.
fn ports(state: &State) -> Result<(), HostError> {
    let settings = state::settings()?;
    let port = settings.value("LINNET_PORT").and_then(|port| port.parse().ok()).unwrap_or(80);
    let wanted: &[u16] = if state.config.tls { &[80, 443] } else { &[port] };
    if docker::container("nginx")?.is_some() {
        return Ok(());
    }
    let text = run("ss", &["--no-header", "--listening", "--tcp", "--numeric", "--processes"], 10)?;
    for port in wanted {
        let end = format!(":{port}");
        let taken = text
            .lines()
            .find(|line| line.split_whitespace().nth(3).is_some_and(|local| local.ends_with(&end)));
        if let Some(line) = taken {
            let program = line.split('"').nth(1).unwrap_or("another program");
            return Err(HostError::Refused(format!(
                "port {port} is in use by {program}; stop and disable it"
            )));
        }
    }
    Ok(())
}

/// A hash of the rendered configuration, in which two deployments of one release are equal.
pub fn fingerprint(state: &State, record: &Record) -> Result<String, HostError> {
    let text = state.compose(&record.id)?.run(&["--profile=*", "config"], CONFIG_SECONDS)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Installs the release's program for the next call. This process keeps the old file.
pub fn install_program(id: &str) -> Result<(), HostError> {
    let source = format!("{}/{id}/linnet-host", paths::RELEASES);
    run("install", &["--mode=0755", "--compare", &source, paths::PROGRAM], 10).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_others_can_enter_or_write_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = folder.path().join("service_token");
        fs::write(&file, "x").unwrap();
        set(&file, 0o444);
        set(folder.path(), 0o700);
        if fs::metadata(folder.path()).unwrap().uid() == 0 {
            secrets(folder.path()).unwrap();
            set(&file, 0o646);
            assert!(secrets(folder.path()).unwrap_err().to_string().contains("others may write"));
            // With a umask of 077.
            set(&file, 0o600);
            assert!(secrets(folder.path()).unwrap_err().to_string().contains("cannot read"));
        }
        set(folder.path(), 0o755);
        assert!(secrets(folder.path()).unwrap_err().to_string().contains("has the mode 755"));
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available_kib("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"), Some(2048));
        assert_eq!(available_kib(""), None);
    }
}
