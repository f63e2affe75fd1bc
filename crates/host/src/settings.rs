//! The operator's settings of `/etc/linnet/linnet.env` that Compose reads, and not a process of Linnet. No I/O.
//!
//! A line `LINNET_NAME=value` is one for Compose, `LINNET__SECTION__KEY=value` one for the processes.

/// The variables that an operator may set. All others derive from the state of the installation.
const NAMES: [&str; 14] = [
    "LINNET_BASE_URL",
    "LINNET_NAMES",
    "LINNET_HOST",
    "LINNET_PORT",
    "LINNET_TRUSTED_PROXIES",
    "LINNET_PROXY_CHAIN",
    "LINNET_HSTS",
    "LINNET_NGINX_GRAFANA",
    "LINNET_CPUS",
    "LINNET_BACKUP_HOUR",
    "LINNET_BACKUP_FULL_S",
    "LINNET_BACKUP_DIFFERENTIAL_S",
    "LINNET_BACKUP_RESTORE_TEST_S",
    "LINNET_BACKUP_KEEP_FULL",
];
/// Settings of the processes that nginx needs too, and the variables through which Compose passes them. nginx is replaced
/// when its variables change, so it does not get the whole file.
const SHARED_WITH_NGINX: [(&str, &str); 1] =
    [("LINNET__PUBLIC__PROBLEM_TYPES_URL", "LINNET_PROBLEM_TYPES_URL")];
/// They would end or change a value in a file of variables.
const NOT_ALLOWED: [char; 6] = ['"', '\'', '\\', '$', '#', '`'];

/// The variables in the text, and for each wrong line a sentence that names it by its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Names and values.
    pub variables: Vec<(String, String)>,
    /// Sentences about wrong lines.
    pub problems: Vec<String>,
}

impl Settings {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let problem = |text: &str| format!("{}, line {number}: {text}", crate::paths::SETTINGS);
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let shared = SHARED_WITH_NGINX.iter().find(|(setting, _)| *setting == name);
            if !line.contains('=') {
                settings.problems.push(problem("a setting is NAME=value"));
            } else if shared.is_none()
                && (name.starts_with("LINNET__") || !name.starts_with("LINNET_"))
            {
                // The processes check theirs, and others are not ours.
            } else if shared.is_none() && !NAMES.contains(&name) {
                settings.problems.push(problem(&format!(
                    "{name} cannot be set; correct its name, or remove it"
                )));
            } else if value.contains(NOT_ALLOWED) || value.chars().any(char::is_control) {
                settings
                    .problems
                    .push(problem(&format!("{name} has a character that no value may have")));
            } else {
                let variable = shared.map_or(name, |(_, variable)| variable);
                settings.variables.push((variable.to_owned(), value.to_owned()));
            }
        }
        settings
    }

    /// The value of a variable; the last line with its name counts.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.as_str())
    }

    /// An address of this server at which nginx listens.
    pub fn own_address(&self) -> &str {
        self.value("LINNET_HOST")
            .filter(|host| !["", "0.0.0.0", "::", "[::]"].contains(host))
            .unwrap_or("127.0.0.1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_compose_are_read_and_those_of_the_processes_are_left_to_them() {
        let text = "# comment\n\nLINNET__CACHE__L1_BYTES=1\nLINNET_HSTS=max-age=300; includeSubDomains\n\
                    OTEL_EXPORTER_OTLP_ENDPOINT=http://x\n LINNET_TRUSTED_PROXIES=10.0.0.0/8,2001:db8::/32\n";
        let settings = Settings::parse(text);
        let wanted = [
            ("LINNET_HSTS", "max-age=300; includeSubDomains"),
            ("LINNET_TRUSTED_PROXIES", "10.0.0.0/8,2001:db8::/32"),
        ];
        let pairs = settings.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert!(pairs.eq(wanted), "{settings:?}");
        assert!(settings.problems.is_empty(), "{settings:?}");
    }

    #[test]
    fn nginx_gets_the_settings_that_it_shares_with_the_processes() {
        let settings =
            Settings::parse("LINNET__PUBLIC__PROBLEM_TYPES_URL=https://docs.example/p\n");
        let wanted = ("LINNET_PROBLEM_TYPES_URL".to_owned(), "https://docs.example/p".to_owned());
        assert_eq!(settings.variables, [wanted]);
        let settings = Settings::parse("LINNET__PUBLIC__PROBLEM_TYPES_URL=$(id)\n");
        assert_eq!((settings.variables.len(), settings.problems.len()), (0, 1), "{settings:?}");
    }

    #[test]
    fn own_address_is_the_one_at_which_nginx_listens() {
        for (text, wanted) in [
            ("", "127.0.0.1"),
            ("LINNET_HOST=0.0.0.0\n", "127.0.0.1"),
            ("LINNET_HOST=10.0.0.1\nLINNET_HOST=203.0.113.7\n", "203.0.113.7"),
        ] {
            assert_eq!(Settings::parse(text).own_address(), wanted);
        }
    }

    #[test]
    fn wrong_lines_are_named_by_their_number() {
        let settings = Settings::parse("LINNET_SECRETS=/tmp\n\nLINNET_HSTS=$(id)\nLINNET_CPUS\n");
        assert!(settings.variables.is_empty(), "{settings:?}");
        for (problem, part) in settings.problems.iter().zip([
            "line 1: LINNET_SECRETS cannot be set",
            "line 3: LINNET_HSTS has a character",
            "line 4: a setting is NAME=value",
        ]) {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(settings.problems.len(), 3);
    }
}
