//! The state of the server: the release of each color, and the color that serves. Every change is written before
//! Docker is asked to follow it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{color::Color, config::HostConfig, record::Images, settings::Settings};

/// The state of the installation. Releases are named by their records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Installation {
    /// The color to which requests go, apart from those of a canary.
    pub active: Option<Color>,
    /// The release of the blue color.
    pub blue: Option<String>,
    /// The release of the green color.
    pub green: Option<String>,
    /// The release of the worker.
    pub worker: Option<String>,
    /// The release of the ACME client. After a rollback to a release without one, it is not that of the worker.
    pub acme: Option<String>,
    /// The release of the backup sidecar, in the same way.
    pub backup: Option<String>,
    /// The deployment that has not ended.
    pub open: Option<String>,
    /// The release that serves.
    pub current: Option<String>,
}

impl Installation {
    /// The release of a color.
    pub fn release_of(&self, color: Color) -> Option<&str> {
        match color {
            Color::Blue => self.blue.as_deref(),
            Color::Green => self.green.as_deref(),
        }
    }

    /// Notes the release of the sidecars among the services.
    pub fn note_sidecars(&mut self, services: &[&str], release: &str) {
        for service in services {
            match *service {
                "acme" => self.acme = Some(release.to_owned()),
                "backup" => self.backup = Some(release.to_owned()),
                _ => {}
            }
        }
    }

    /// All releases that containers have.
    pub fn releases(&self) -> impl Iterator<Item = &str> {
        [&self.blue, &self.green, &self.worker, &self.acme, &self.backup]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Changes the release of a color.
    pub fn set_release(&mut self, color: Color, release: Option<String>) {
        match color {
            Color::Blue => self.blue = release,
            Color::Green => self.green = release,
        }
    }
}

/// The variables with the sidecars' images.
fn sidecars<'a>(
    installation: &Installation,
    images: impl Fn(&str) -> Option<&'a Images>,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    // A file of an earlier program names no releases of sidecars: they are those of the worker.
    let of = |release: &Option<String>| {
        release.as_deref().or(installation.worker.as_deref()).and_then(&images)
    };
    let acme = of(&installation.acme).and_then(|images| images.acme.as_deref());
    let backup = of(&installation.backup).and_then(|images| images.backup.as_deref());
    [("LINNET_ACME_IMAGE", acme), ("LINNET_BACKUP_IMAGE", backup)]
        .into_iter()
        .filter_map(|(name, image)| Some((name, image?)))
}

/// The variables of the Compose files. Settings of the operator take precedence. `images` returns those of a release.
pub fn compose_variables<'a>(
    installation: &Installation,
    config: &HostConfig,
    settings: &Settings,
    images: impl Fn(&str) -> Option<&'a Images>,
) -> String {
    let mut text =
        String::from("# Written by linnet-host. Settings belong into /etc/linnet/linnet.env.\n");
    let mut add = |name: &str, value: &str| {
        let value = settings.value(name).unwrap_or(value);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={value}");
    };
    add("LINNET_PROJECT", "linnet");
    add("LINNET_SECRETS", crate::paths::SECRETS);
    // Without TLS here, a proxy in front terminates it.
    add("LINNET_BASE_URL", &format!("https://{}", config.domain));
    add("LINNET_NAMES", &config.domain);
    add("LINNET_EMAIL", &config.email);
    add("LINNET_ACME_DIRECTORY", &config.acme_directory);
    add("LINNET_TEXTFILE", "--collector.textfile");
    add("LINNET_LOG_FOLDER", crate::paths::LOGS);
    add("LINNET_LOG_SOCKET", &format!("{}/fluent.sock", crate::paths::LOGS));
    add("LINNET_HOST", "0.0.0.0");
    add("LINNET_PORT", "80");
    add("LINNET_HTTP_PORT", "80");
    add("LINNET_HTTPS_PORT", "443");
    for (name, value) in
        [("LINNET_BACKUP_REPOSITORY", &config.backup), ("LINNET_BACKUP_DISK", &config.backup_disk)]
    {
        if let Some(value) = value {
            add(name, value);
        }
    }
    for color in Color::ALL {
        let of_color = installation.release_of(color).and_then(&images);
        if let Some(images) = of_color {
            let name = color.name().to_uppercase();
            add(&format!("LINNET_{name}_GATEWAY_IMAGE"), &images.gateway);
            add(&format!("LINNET_{name}_SHORTENER_IMAGE"), &images.shortener);
        }
    }
    if let Some(images) = installation.worker.as_deref().and_then(&images) {
        add("LINNET_SHORTENER_IMAGE", &images.shortener);
        add("LINNET_GATEWAY_IMAGE", &images.gateway);
    }
    for (name, image) in sidecars(installation, &images) {
        add(name, image);
    }
    let written: Vec<String> =
        text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    for (name, value) in settings.variables.iter().filter(|(name, _)| !written.contains(name)) {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_the_images_of_each_color_and_of_the_worker() {
        let installation = Installation {
            blue: Some("old".to_owned()),
            green: Some("new".to_owned()),
            worker: Some("old".to_owned()),
            ..Installation::default()
        };
        let images = |name: &str| Images {
            gateway: format!("gateway@{name}"),
            shortener: format!("shortener@{name}"),
            bundle: String::new(),
            acme: Some(format!("acme@{name}")),
            backup: Some(format!("backup@{name}")),
        };
        let (old, new) = (images("old"), images("new"));
        let repository = Some("s3://bucket/linnet?endpoint=s3.example.com".to_owned());
        let config = HostConfig { backup: repository, ..HostConfig::default() };
        let text = compose_variables(&installation, &config, &Settings::default(), |id| {
            Some(if id == "old" { &old } else { &new })
        });
        for line in [
            "LINNET_BLUE_GATEWAY_IMAGE=gateway@old",
            "LINNET_GREEN_SHORTENER_IMAGE=shortener@new",
            "LINNET_SHORTENER_IMAGE=shortener@old",
            "LINNET_ACME_IMAGE=acme@old",
            "LINNET_BACKUP_IMAGE=backup@old",
            "LINNET_BACKUP_REPOSITORY=s3://bucket/linnet?endpoint=s3.example.com",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn server_behind_a_proxy_has_https_links_and_knows_the_proxy() {
        let config =
            HostConfig { domain: "go.example.com".to_owned(), tls: false, ..HostConfig::default() };
        let settings = Settings::parse("LINNET_TRUSTED_PROXIES=10.0.0.0/8\nLINNET_PORT=8080\n");
        let text = compose_variables(&Installation::default(), &config, &settings, |_| None);
        for line in [
            "LINNET_BASE_URL=https://go.example.com",
            "LINNET_TRUSTED_PROXIES=10.0.0.0/8",
            "LINNET_PORT=8080",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {text}");
        }
        assert_eq!(text.matches("LINNET_PORT=").count(), 1, "{text}");
    }

    #[test]
    fn sidecar_that_the_release_before_lacks_keeps_its_image_after_a_rollback() {
        let old = Images {
            gateway: "gateway@v1".to_owned(),
            shortener: "shortener@v1".to_owned(),
            bundle: String::new(),
            acme: Some("acme@v1".to_owned()),
            backup: None,
        };
        let new = Images { backup: Some("backup@v2".to_owned()), ..old.clone() };
        let mut installation =
            Installation { worker: Some("v2".to_owned()), ..Installation::default() };
        installation.note_sidecars(&["worker", "acme", "backup"], "v2");
        installation.worker = Some("v1".to_owned());
        assert_eq!(old.sidecars(), ["acme"]);
        installation.note_sidecars(&["worker", "acme"], "v1");
        let images = |id: &str| Some(if id == "v1" { &old } else { &new });
        let text =
            compose_variables(&installation, &HostConfig::default(), &Settings::default(), images);
        assert!(text.contains("LINNET_ACME_IMAGE=acme@v1\n"), "{text}");
        assert!(text.contains("LINNET_BACKUP_IMAGE=backup@v2\n"), "{text}");
        assert_eq!(installation.releases().collect::<Vec<_>>(), ["v1", "v1", "v2"]);
    }
}
