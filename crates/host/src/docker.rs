//! The commands of Docker and Compose that a deployment needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{color::Color, command::run, compose::PROJECT, error::HostError, record::Images};

/// A file or folder of this server in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The container's service.
    pub service: String,
    /// The path on this server.
    pub source: String,
}

/// The files and folders in all containers of the installation. Stopped ones count: Docker starts them again.
pub fn mounts() -> Result<Vec<Mount>, HostError> {
    let project = format!("label=com.docker.compose.project={PROJECT}");
    let ids = run("docker", &["ps", "--all", "--quiet", "--no-trunc", "--filter", &project], 15)?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let format = "{{$service := index .Config.Labels \"com.docker.compose.service\"}}{{range .Mounts}}\
                  {{if eq .Type \"bind\"}}{{$service}} {{.Source}}{{println}}{{end}}{{end}}";
    let arguments: Vec<&str> =
        ["inspect", "--format", format].into_iter().chain(ids.lines()).collect();
    Ok(mounts_of(&run("docker", &arguments, 30)?))
}

fn mounts_of(text: &str) -> Vec<Mount> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(service, source)| Mount { service: service.to_owned(), source: source.to_owned() })
        .collect()
}

/// The services that have containers, each once.
pub fn services() -> Result<BTreeSet<String>, HostError> {
    let project = format!("label=com.docker.compose.project={PROJECT}");
    let one_off = "label=com.docker.compose.oneoff=False";
    let format = "{{.Label \"com.docker.compose.service\"}}";
    let text = run(
        "docker",
        &["ps", "--all", "--filter", &project, "--filter", one_off, "--format", format],
        15,
    )?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A container as Docker describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The id.
    pub id: String,
    /// Whether its process runs.
    pub is_running: bool,
    /// When its process was started, as Docker writes it.
    pub started_at: String,
    /// How often Docker restarted it.
    pub restarts: u64,
    /// Whether its last process was killed for its memory.
    pub is_out_of_memory: bool,
    /// The memory limit in bytes; 0 without one.
    pub memory_limit: u64,
    /// An address that the server reaches, of a network that is internal or not.
    pub address: Option<String>,
    /// The id of its image.
    pub image: String,
}

/// The container of a service; `None` if there is none. A replaced container is gone before its successor exists.
pub fn container(service: &str) -> Result<Option<Container>, HostError> {
    let project = format!("label=com.docker.compose.project={PROJECT}");
    let service = format!("label=com.docker.compose.service={service}");
    let one_off = "label=com.docker.compose.oneoff=False";
    let ids = run(
        "docker",
        &[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &project,
            "--filter",
            &service,
            "--filter",
            one_off,
        ],
        15,
    )?;
    let Some(id) = ids.lines().next() else { return Ok(None) };
    let text = run("docker", &["inspect", "--format", "{{json .}}", id], 15)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| HostError::Damaged("docker inspect".into(), error))?;
    Ok(Some(describe(id, &value)))
}

/// Containers by their ids, with one call. Fails if one is gone.
pub fn containers(ids: &[&str]) -> Result<Vec<Container>, HostError> {
    let arguments: Vec<&str> =
        ["inspect", "--format", "{{json .}}"].into_iter().chain(ids.iter().copied()).collect();
    let text = run("docker", &arguments, 15)?;
    ids.iter()
        .zip(text.lines())
        .map(|(id, line)| {
            let value = serde_json::from_str(line)
                .map_err(|error| HostError::Damaged("docker inspect".into(), error))?;
            Ok(describe(id, &value))
        })
        .collect()
}

fn describe(id: &str, value: &Value) -> Container {
    let text = |pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let is = |pointer: &str| value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
    let networks = value.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let address = networks.and_then(|networks| {
        networks
            .values()
            .filter_map(|network| network.get("IPAddress").and_then(Value::as_str))
            .find(|address| !address.is_empty())
            .map(str::to_owned)
    });
    Container {
        id: id.to_owned(),
        is_running: is("/State/Running") && !is("/State/Restarting"),
        started_at: text("/State/StartedAt"),
        restarts: number("/RestartCount"),
        is_out_of_memory: is("/State/OOMKilled"),
        memory_limit: number("/HostConfig/Memory"),
        address,
        image: text("/Image"),
    }
}

/// The running containers of the installation: service and id. One call, because the way back waits for it.
pub fn running() -> Result<BTreeMap<String, String>, HostError> {
    let project = format!("label=com.docker.compose.project={PROJECT}");
    let arguments = [
        "ps",
        "--no-trunc",
        "--filter",
        &project,
        "--filter",
        "label=com.docker.compose.oneoff=False",
        "--filter",
        "status=running",
        "--format",
        "{{.Label \"com.docker.compose.service\"}} {{.ID}}",
    ];
    Ok(running_of(&run("docker", &arguments, 15)?))
}

/// The same, after Docker's next start if it is restarting; nothing if that takes longer.
pub fn running_once_available(seconds: u64) -> BTreeMap<String, String> {
    let again = |_| {
        wait_until_available(seconds);
        running()
    };
    running().or_else(again).unwrap_or_default()
}

fn running_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(service, id)| (service.to_owned(), id.to_owned())).collect()
}

/// Which of ten slots of a group lead to the color.
pub fn set_slots(color: Color, count: u8) -> Result<(), HostError> {
    let count = count.to_string();
    let arguments = [color.name(), &count];
    // Docker may be restarting. A repetition does no harm.
    let result = slots(&arguments).or_else(|_| {
        wait_until_available(30);
        slots(&arguments)
    });
    result.map(drop)
}

/// Runs nginx's `slots.sh`; without arguments it prints one line for each group of slots.
pub fn slots(arguments: &[&str]) -> Result<String, HostError> {
    let running = running()?;
    let nginx = running.get("nginx").ok_or_else(|| {
        HostError::Unhealthy("nginx is not running; start it with `deploy.sh apply`".to_owned())
    })?;
    slots_of(nginx, arguments)
}

/// The same in a container of nginx by its id.
pub fn slots_of(nginx: &str, arguments: &[&str]) -> Result<String, HostError> {
    let mut all = vec!["exec", nginx, "sh", "/etc/nginx/slots.sh"];
    all.extend(arguments);
    // Idempotent, and slow only on a server without processor time.
    run("docker", &all, 30)
}

/// The folder of a volume on this server.
pub fn volume(name: &str) -> Result<PathBuf, HostError> {
    let volume = format!("{PROJECT}_{name}");
    let path = run("docker", &["volume", "inspect", "--format", "{{.Mountpoint}}", &volume], 15)?;
    Ok(PathBuf::from(path))
}

/// The label of an image, such as its version.
pub fn label(image: &str, name: &str) -> Result<String, HostError> {
    let format = format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}");
    run("docker", &["image", "inspect", "--format", &format, image], 15)
}

/// The id of an image that the server has.
pub fn image_id(image: &str) -> Result<String, HostError> {
    run("docker", &["image", "inspect", "--format", "{{.Id}}", image], 15)
}

/// Whether the server has the image.
pub fn has_image(image: &str) -> bool {
    image_id(image).is_ok()
}

/// Removes containers, which drain at the same time. Their volumes stay.
pub fn remove(services: &[String], stop_seconds: u64) -> Result<(), HostError> {
    let ids = stop(services, stop_seconds)?;
    if ids.is_empty() {
        return Ok(());
    }
    let all: Vec<&str> =
        ["rm", "--force"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    run("docker", &all, 30).map(drop)
}

/// Stops containers at the same time, also those in a restart loop, and returns their ids. They stay stopped, also after a
/// restart of the server.
pub fn stop(services: &[String], stop_seconds: u64) -> Result<Vec<String>, HostError> {
    let mut ids = Vec::new();
    for service in services {
        ids.extend(container(service)?.map(|container| container.id));
    }
    if !ids.is_empty() {
        let seconds = stop_seconds.to_string();
        let first = ["stop", "--time", &seconds];
        let all: Vec<&str> = first.into_iter().chain(ids.iter().map(String::as_str)).collect();
        run("docker", &all, stop_seconds + 20)?;
    }
    Ok(ids)
}

/// Removes a container that a killed client has left.
pub fn remove_by_name(name: &str) {
    // It usually does not exist. If it cannot be removed, the next container of the name reports that.
    let _ = run("docker", &["rm", "--force", name], 30);
}

/// Waits until Docker responds, which it does not while it restarts. Containers continue meanwhile.
pub fn wait_until_available(seconds: u64) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while run("docker", &["version", "--format", "ok"], 10).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(500));
    }
}

/// Removes images that no container uses and that were tagged more than an hour ago, except those of the given releases:
/// of Linnet all of them, of `others`, such as PostgreSQL, other versions. Failures do not matter: the disk check of the
/// next deployment notices what stays.
pub fn prune(keep: &[&Images], others: &[String]) {
    let listed = run(
        "docker",
        &["image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}", "--all"],
        30,
    )
    .unwrap_or_default();
    let kept: Vec<String> = keep
        .iter()
        .flat_map(|images| images.all())
        .chain(others)
        .filter_map(|image| {
            run("docker", &["image", "inspect", "--format", "{{.Id}}", image], 15).ok()
        })
        .collect();
    for id in unneeded(&listed, &kept, others) {
        // `deploy.sh release` sends images before it names them, so a new one may be about to be deployed.
        if is_tagged_lately(id) {
            continue;
        }
        // Without force: Docker refuses to remove an image that a container uses.
        let _ = run("docker", &["image", "rm", id], 30);
    }
}

/// The ids of `listed` images that are of Linnet, or of a repository of `others`, and not kept.
fn unneeded<'a>(listed: &'a str, kept: &[String], others: &[String]) -> Vec<&'a str> {
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter(|(id, repository)| {
            let is_ours = ["/gateway", "/shortener", "/bundle", "/acme", "/backup"]
                .iter()
                .any(|end| repository.ends_with(end));
            let is_other = || others.iter().any(|image| repository_of(image) == *repository);
            (is_ours || is_other()) && !kept.iter().any(|kept| kept == id)
        })
        .map(|(id, _)| id)
        .collect()
}

/// The reference without its digest and tag. A colon before a slash is that of a port.
fn repository_of(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Whether the image got a tag on this server within the last hour. One that was pulled by digest has none.
fn is_tagged_lately(id: &str) -> bool {
    let format = "{{json .Metadata.LastTagTime}}";
    let Ok(time) = run("docker", &["image", "inspect", "--format", format, id], 15) else {
        return true;
    };
    let date = format!("--date={}", time.trim_matches('"'));
    let tagged = run("date", &[&date, "+%s"], 5).ok().and_then(|text| text.parse::<i64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    tagged.is_some_and(|tagged| now.saturating_sub(u64::try_from(tagged).unwrap_or(0)) < 3600)
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
