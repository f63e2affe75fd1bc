//! Compose with the files of one release, and with the variables that [`crate::installation`] derives.

use std::path::Path;

use serde_json::Value;

use crate::{command::run, config::HostConfig, error::HostError, paths};

/// The project's name in Compose.
pub const PROJECT: &str = "linnet";
/// Longest time to read the files, in seconds. It takes a second; without processor time it took more than 30 s, and a return
/// to the old release must not end there.
pub const CONFIG_SECONDS: u64 = 120;

/// Compose with the files of one release.
pub struct Compose {
    base: Vec<String>,
    files: Vec<String>,
    profiles: Vec<String>,
}

fn variables_file() -> String {
    format!("{}/compose.env", paths::STATE)
}

impl Compose {
    /// The files of the release's folder that the settings select.
    pub fn of_release(id: &str, config: &HostConfig) -> Result<Self, HostError> {
        Self::of_folder(&Path::new(paths::RELEASES).join(id), config)
    }

    /// A bundle of an earlier release may lack some files, but each has the first.
    fn of_folder(release: &Path, config: &HostConfig) -> Result<Self, HostError> {
        let folder = release.join("deploy");
        // Loki is a part of the profile, and without lines an alert would fire.
        let has_loki = config.profiles.iter().any(|name| name == "monitoring");
        let chosen = [
            ("compose.yaml", true),
            ("compose.tls.yaml", config.tls),
            ("compose.backup.yaml", config.backup.is_some()),
            ("compose.logs.yaml", has_loki),
            ("compose.tls.logs.yaml", has_loki && config.tls),
            ("compose.backup.logs.yaml", has_loki && config.backup.is_some()),
            ("compose.server.yaml", true),
        ];
        let chosen = chosen.into_iter().filter(|(_, is_chosen)| *is_chosen);
        let files: Vec<String> = chosen
            .map(|(file, _)| folder.join(file))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        // Without `--file`, Compose would search for files elsewhere.
        if !folder.join("compose.yaml").exists() {
            return Err(HostError::Refused(format!(
                "{} has no Compose files; deploy a release with `deploy.sh release`",
                release.display()
            )));
        }
        let mut base = vec!["compose".to_owned()];
        // In one word each, so that an error names the command of Compose and not these values.
        let mut add = |option: &str, value: String| base.push(format!("{option}={value}"));
        // Otherwise errors are hidden among lines about containers.
        add("--progress", "quiet".to_owned());
        add("--project-name", PROJECT.to_owned());
        add("--project-directory", folder.display().to_string());
        add("--env-file", variables_file());
        for file in &files {
            add("--file", file.clone());
        }
        for profile in &config.profiles {
            add("--profile", profile.clone());
        }
        Ok(Self { base, files, profiles: config.profiles.clone() })
    }

    /// The same choice as variables, for a script that calls Compose. Green counts as a part of the installation.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let profiles: Vec<&str> =
            self.profiles.iter().map(String::as_str).chain(["green"]).collect();
        [
            ("COMPOSE_FILE", self.files.join(":")),
            ("COMPOSE_PROJECT_NAME", PROJECT.to_owned()),
            ("COMPOSE_ENV_FILES", variables_file()),
            ("COMPOSE_PROFILES", profiles.join(",")),
        ]
    }

    /// Runs a command of Compose and returns its output.
    pub fn run(&self, arguments: &[&str], seconds: u64) -> Result<String, HostError> {
        let all: Vec<&str> =
            self.base.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        run("docker", &all, seconds)
    }

    /// The same with a variable that takes precedence over those of the file.
    pub fn run_with(
        &self,
        variable: &str,
        arguments: &[&str],
        seconds: u64,
    ) -> Result<String, HostError> {
        let all: Vec<&str> = [variable, "docker"]
            .into_iter()
            .chain(self.base.iter().map(String::as_str))
            .chain(arguments.iter().copied())
            .collect();
        run("env", &all, seconds)
    }

    /// Starts services and no others, with the images of the variables.
    pub fn up(&self, services: &[&str], seconds: u64) -> Result<(), HostError> {
        // One after the other, because each start takes processor time from the requests.
        let mut arguments =
            vec!["--parallel=1", "up", "--detach", "--no-build", "--no-deps", "--pull=missing"];
        arguments.extend(services);
        self.run(&arguments, seconds).map(drop)
    }

    /// The configuration of all services, of both colors.
    pub fn configuration(&self) -> Result<Value, HostError> {
        let text = self.run(&["--profile=green", "config", "--format", "json"], CONFIG_SECONDS)?;
        serde_json::from_str(&text)
            .map_err(|error| HostError::Damaged("docker compose config".into(), error))
    }

    /// The services of the chosen files.
    pub fn services(&self) -> Result<Vec<String>, HostError> {
        let text = self.run(&["--profile=green", "config", "--services"], CONFIG_SECONDS)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The images of all services, as the chosen files name them.
    pub fn images(&self) -> Result<Vec<String>, HostError> {
        let text = self.run(&["--profile=*", "config", "--images"], CONFIG_SECONDS)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn release_without_its_folder_is_an_error_and_one_with_it_names_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("v1");
        let config = HostConfig::default();
        let error = Compose::of_folder(&release, &config).map(drop).unwrap_err().to_string();
        assert!(error.contains("v1 has no Compose files; deploy a release"), "{error}");
        fs::create_dir_all(release.join("deploy")).unwrap();
        let all = [
            "compose.yaml",
            "compose.tls.yaml",
            "compose.backup.yaml",
            "compose.logs.yaml",
            "compose.tls.logs.yaml",
            "compose.backup.logs.yaml",
        ];
        for file in all {
            fs::write(release.join("deploy").join(file), "").unwrap();
        }
        let names = |config: &HostConfig| {
            let compose = Compose::of_folder(&release, config).unwrap();
            let names = compose.files.iter().filter_map(|file| file.rsplit('/').next());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&config), ["compose.yaml", "compose.tls.yaml"]);
        let config = HostConfig { profiles: vec!["monitoring".to_owned()], ..config };
        assert_eq!(
            names(&config),
            ["compose.yaml", "compose.tls.yaml", "compose.logs.yaml", "compose.tls.logs.yaml"]
        );
        let config = HostConfig { backup: Some("file:///repository".to_owned()), ..config };
        assert_eq!(names(&config), all);
    }
}
