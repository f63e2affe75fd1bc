//! Checks before a deployment, each with its own sentence, and what is tidied after one.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use serde_json::Value;

use crate::{
    command::run,
    docker,
    error::HostError,
    files, paths,
    record::{Images, Record, Way},
    state::{State, now},
};

const MIB: u64 = 1 << 20;
/// The limits of both processes of a color, if the Compose files do not say.
const COLOR_MIB: u64 = 144;

/// Checks memory, disk, secrets, ports and images.
pub fn before(state: &State, record: &Record) -> Result<(), HostError> {
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
    }
    Ok(())
}

fn disk(state: &State) -> Result<(), HostError> {
    let text = run("df", &["--output=avail", "--block-size=1M", "/var/lib/docker"], 10)?;
    let free: u64 = text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    let needed = state.config.disk_reserve_mib;
    if free < needed {
        return Err(HostError::Refused(format!(
            "only {free} MiB of disk are free and {needed} are needed; free some with `docker system prune`, or use a \
             larger disk"
        )));
    }
    Ok(())
}

fn memory(state: &State, record: &Record) -> Result<(), HostError> {
    let text = files::read("/proc/meminfo")?.unwrap_or_default();
    let free = available_kib(&text).unwrap_or(0) / 1024;
    let needed = color_mib(state, record) + state.config.memory_reserve_mib;
    if free < needed {
        return Err(HostError::Refused(format!(
            "only {free} MiB of memory are free and a second color needs {needed}; use `--in-place`, which fails requests \
             for some seconds, or a larger server"
        )));
    }
    Ok(())
}

fn available_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory limits of a color, in MiB.
fn color_mib(state: &State, record: &Record) -> u64 {
    let text = state
        .compose(&record.id)
        .run(&["--profile", "green", "config", "--format", "json"], 30)
        .unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
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
    let wanted: &[u16] = if state.config.tls { &[80, 443] } else { &[80] };
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
    let text = state.compose(&record.id).run(&["--profile", "*", "config"], 30)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Installs the release's program for the next call. This process keeps the old file.
pub fn install_program(id: &str) -> Result<(), HostError> {
    let source = format!("{}/{id}/linnet-host", paths::RELEASES);
    run("install", &["--mode=0755", "--compare", &source, paths::PROGRAM], 10).map(drop)
}

/// A release that was prepared and has not ended after this time, in seconds, never will.
const LONGEST_DEPLOYMENT_S: u64 = 6 * 3600;

/// Removes folders and images of releases that are neither current, nor the one before, nor prepared: the next deployment
/// has fetched its release when it ends this one.
pub fn tidy(state: &State) {
    let Ok(Some(current)) = state.current() else { return };
    let previous = current.previous.as_deref().and_then(|id| files::read_record(id).ok().flatten());
    let pending = pending(now());
    let kept: Vec<&Record> =
        std::iter::once(&current).chain(previous.as_ref()).chain(&pending).collect();
    let images: Vec<&Images> = kept.iter().map(|record| &record.images).collect();
    let folders: Vec<_> = kept
        .iter()
        .filter_map(|record| fs::canonicalize(Path::new(paths::RELEASES).join(&record.id)).ok())
        .collect();
    // nginx and the stores keep the files of the release that created them. Without these, they do not start again when
    // the server does.
    let Ok(mounted) = docker::mounted(paths::RELEASES) else { return };
    let folders: Vec<_> = mounted
        .iter()
        .filter_map(|name| fs::canonicalize(Path::new(paths::RELEASES).join(name)).ok())
        .chain(folders)
        .collect();
    let Ok(entries) = fs::read_dir(paths::RELEASES) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_named = kept
            .iter()
            .map(|record| &record.id)
            .chain(&mounted)
            .any(|id| name.to_str() == Some(id));
        let is_target = fs::canonicalize(&path).is_ok_and(|path| folders.contains(&path));
        if is_named || is_target {
            continue;
        }
        // The next deployment removes the rest.
        let _ = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
    }
    docker::prune(&images);
}

/// The releases in the folder whose deployment has not ended.
fn pending(now: u64) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(paths::RELEASES) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| files::read_record(entry.file_name().to_str()?).ok().flatten())
        .filter(|record| is_pending(record, now))
        .collect()
}

const fn is_pending(record: &Record, now: u64) -> bool {
    record.outcome.is_none() && record.started + LONGEST_DEPLOYMENT_S > now
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
        }
        set(folder.path(), 0o755);
        assert!(secrets(folder.path()).unwrap_err().to_string().contains("has the mode 755"));
    }

    #[test]
    fn prepared_release_is_kept_until_it_ends_or_is_forgotten() {
        let mut prepared = crate::record::tests::record(&[]);
        assert!(is_pending(&prepared, prepared.started + 10));
        assert!(!is_pending(&prepared, prepared.started + LONGEST_DEPLOYMENT_S));
        prepared.finish(crate::record::Outcome::Succeeded, prepared.started);
        assert!(!is_pending(&prepared, prepared.started + 10));
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available_kib("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"), Some(2048));
        assert_eq!(available_kib(""), None);
    }
}
