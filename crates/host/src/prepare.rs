//! The first part of `deploy`, before the unit starts: images, the release's folder, its record.

use std::{fs, path::Path};

use crate::{
    checks,
    color::Color,
    command::run,
    config::HostConfig,
    docker,
    error::HostError,
    files, paths,
    plan::Occupation,
    record::{Images, Record, Way},
    state::{State, now},
    unit,
    verbs::{Manner, Source, is_record_id},
};

/// Fetches the images, unpacks the bundle and writes the record. Returns the record's id.
pub fn prepare(source: &Source, manner: &Manner) -> Result<String, HostError> {
    let state = State::read()?;
    refuse_if_busy()?;
    if manner.restore.is_some() {
        refuse_restore(&state)?;
    }
    // PostgreSQL has its files on the same disk, so images must not fill it.
    checks::disk(&state)?;
    let images = fetch(source, &state.config)?;
    architecture(&images)?;
    let release = docker::label(&images.shortener, "version")?;
    for image in images.all() {
        let other = docker::label(image, "version")?;
        if other != release {
            return Err(HostError::Refused(format!(
                "the images are of different releases: shortener {release}, and {image} {other}; deploy those of one build"
            )));
        }
    }
    if let Some(current) = state.current()? {
        let id = |image: &str| docker::image_id(image).unwrap_or_default();
        refuse_equal_name(&current, &release, &images, id)?;
    }
    let id = new_id(&release)?;
    unpack(&images.bundle, &id)?;
    let record = Record {
        id: id.clone(),
        release,
        // Decided when the deployment starts.
        color: Color::Blue,
        images,
        previous: None,
        by: std::env::var("SUDO_USER").unwrap_or_else(|_| "root".to_owned()),
        way: if manner.in_place { Way::InPlace } else { Way::Canary },
        started: now(),
        ended: None,
        steps: Vec::new(),
        reverting: None,
        outcome: None,
        config: None,
        restore: manner.restore.clone(),
    };
    // Without metrics: it is open once its unit has started.
    files::write_json(files::record_path(&id), &record)?;
    Ok(id)
}

/// Refuses a deployment beside another one or a restore. One that only keeps its old color warm gives way.
pub fn refuse_if_busy() -> Result<(), HostError> {
    match unit::occupied()? {
        Occupation::Free | Occupation::Warm(_) => Ok(()),
        other => Err(other.refusal()),
    }
}

/// A release restores only where it is the first one.
fn refuse_restore(state: &State) -> Result<(), HostError> {
    if state.config.backup.is_none() {
        return Err(HostError::Refused(
            "this server has no backups; run `deploy.sh init` with the --backup of the lost one"
                .to_owned(),
        ));
    }
    if state.installation.current.is_some() {
        return Err(HostError::Refused(
            "a release runs here already; restore with `deploy.sh restore`".to_owned(),
        ));
    }
    Ok(())
}

/// A release is recognized by its name: with that of the current one, its readiness would prove nothing.
fn refuse_equal_name(
    current: &Record,
    release: &str,
    images: &Images,
    id: impl Fn(&str) -> String,
) -> Result<(), HostError> {
    let pairs = [
        (&current.images.gateway, &images.gateway),
        (&current.images.shortener, &images.shortener),
    ];
    // The same image may have been pulled and sent.
    let is_other = |(old, new): &(&String, &String)| old != new && id(old) != id(new);
    if current.release == release && pairs.iter().any(is_other) {
        return Err(HostError::Refused(format!(
            "the release {release} runs already, with other images; build these with another `--build-arg LINNET_RELEASE=…`"
        )));
    }
    Ok(())
}

fn fetch(source: &Source, config: &HostConfig) -> Result<Images, HostError> {
    let (digests, is_loaded) = match source {
        Source::Registry(digests) => (digests, false),
        Source::Loaded(digests) => (digests, true),
    };
    if config.tls && digests.acme.is_none() {
        return Err(HostError::Refused(
            "this server terminates TLS, so a release needs the image acme as well; add its digest"
                .to_owned(),
        ));
    }
    if config.backup.is_some() && digests.backup.is_none() {
        return Err(HostError::Refused(
            "this server has backups, so a release needs the image backup as well; add its digest"
                .to_owned(),
        ));
    }
    let image = |name: &str, digest: &String| {
        if is_loaded { digest.clone() } else { format!("{}/{name}@{digest}", config.registry) }
    };
    let images = Images {
        gateway: image("gateway", &digests.gateway),
        shortener: image("shortener", &digests.shortener),
        bundle: image("bundle", &digests.bundle),
        acme: digests.acme.as_ref().map(|digest| image("acme", digest)),
        backup: digests.backup.as_ref().map(|digest| image("backup", digest)),
    };
    for image in images.all() {
        if !is_loaded {
            pull(image)?;
        } else if !docker::has_image(image) {
            return Err(HostError::Refused(format!(
                "the image {image} was not loaded; run `deploy.sh release` again"
            )));
        }
    }
    Ok(images)
}

fn pull(image: &str) -> Result<(), HostError> {
    let Err(error) = run("docker", &["pull", "--quiet", image], 300) else { return Ok(()) };
    let text = error.to_string();
    Err(HostError::Refused(format!("{image}: {} ({text})", reason_of_pull(&text))))
}

/// The way out of a failed pull, by the message of Docker.
fn reason_of_pull(text: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["no space left"]) {
        "the disk is full; free some (`df -h`, `docker system df -v`), or use a larger disk"
    } else if has(&["no matching manifest"]) {
        "the image is not for the processor of this server; build it with `--platform`"
    } else if has(&["toomanyrequests"]) {
        "the registry limits pulls; try again later, or run `docker login`"
    } else if has(&["manifest unknown", "not found", "denied", "unauthorized"]) {
        "the registry has no such image for this server; check the digest, and that the package is public or \
         `docker login` was run"
    } else {
        "the registry cannot be reached; try again later, or send local images with `deploy.sh release HOST`"
    }
}

fn architecture(images: &Images) -> Result<(), HostError> {
    let ours = run("docker", &["version", "--format", "{{.Server.Arch}}"], 15)?;
    for image in images.all() {
        let theirs =
            run("docker", &["image", "inspect", "--format", "{{.Architecture}}", image], 15)?;
        if theirs != ours {
            return Err(HostError::Refused(format!(
                "the image {image} is for {theirs} and this server is {ours}; build it with `--platform linux/{ours}`"
            )));
        }
    }
    Ok(())
}

fn new_id(release: &str) -> Result<String, HostError> {
    let time = run("date", &["--utc", "+%Y%m%d-%H%M%S"], 5)?;
    let name: String = release
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' })
        .take(60)
        .collect();
    let id = format!("{time}-{name}");
    if release.is_empty() || !is_record_id(&id) || Path::new(paths::RELEASES).join(&id).exists() {
        return Err(HostError::Refused(format!(
            "the images have no usable release (label org.opencontainers.image.version: '{release}'), or another deployment \
             began in the same second; try again"
        )));
    }
    Ok(id)
}

/// Copies the bundle's files out of its image. Nothing in it runs in a container.
fn unpack(bundle: &str, id: &str) -> Result<(), HostError> {
    let folder = Path::new(paths::RELEASES).join(id);
    let new = Path::new(paths::RELEASES).join(format!(".{id}"));
    fs::create_dir_all(&new).map_err(|error| HostError::File(new.clone(), error))?;
    let container = run("docker", &["create", bundle, "none"], 30)?;
    let copied =
        run("docker", &["cp", &format!("{container}:/bundle/."), &new.display().to_string()], 60);
    run("docker", &["rm", &container], 30)?;
    copied?;
    let settings = new.join("deploy/linnet.env");
    files::link(&settings, paths::SETTINGS)?;
    run(
        "chown",
        &["--recursive", "--no-dereference", "root:root", &new.display().to_string()],
        30,
    )?;
    fs::rename(&new, &folder).map_err(|error| HostError::File(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn failed_pull_names_the_way_out() {
        for (text, words) in [
            ("write /var/lib/docker/tmp/x: no space left on device", "the disk is full"),
            ("no matching manifest for linux/arm64/v8 in the manifest list entries", "processor"),
            ("toomanyrequests: You have reached your pull rate limit", "limits pulls"),
            ("manifest for x@sha256:0 not found: manifest unknown", "check the digest"),
            ("unauthorized: authentication required", "docker login"),
            ("dial tcp 127.0.0.1:5000: connect: connection refused", "cannot be reached"),
            ("dial tcp: lookup ghcr.io on 127.0.0.53:53: no such host", "cannot be reached"),
        ] {
            assert!(reason_of_pull(text).contains(words), "{text}");
        }
    }

    #[test]
    fn other_images_with_the_name_of_the_current_release_are_refused() {
        let current = Record { release: "v1".to_owned(), ..record(&[]) };
        let images =
            |shortener: &str| Images { shortener: shortener.to_owned(), ..current.images.clone() };
        let refused = |release: &str, shortener: &str| {
            let id = |image: &str| image.trim_start_matches("registry/").to_owned();
            refuse_equal_name(&current, release, &images(shortener), id).is_err()
        };
        let same = current.images.shortener.clone();
        assert!(!refused("v1", &same));
        assert!(!refused("v1", &format!("registry/{same}")));
        assert!(!refused("v2", "another"));
        assert!(refused("v1", "another"));
    }
}
