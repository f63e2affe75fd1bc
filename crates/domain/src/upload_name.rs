//! The name of an upload, which a job's row contains and which states where the content is.

use std::fmt;

use super::UploadId;

const POSTGRES: &str = "postgres:";

/// The name of an upload. Every process finds the content by the name, whatever `jobs.upload_store` is: jobs from before a
/// change of the setting continue after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UploadName {
    /// A file of this name in `jobs.upload_dir`.
    File(String),
    /// Pieces in the database: `postgres:` and the id.
    Pieces(UploadId),
}

impl fmt::Display for UploadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Pieces(id) => write!(f, "{POSTGRES}{id}"),
        }
    }
}

impl UploadName {
    /// The name with this text. A text without an id is the name of a file.
    pub fn of(text: String) -> Self {
        let id = text.strip_prefix(POSTGRES).and_then(|id| id.parse().ok());
        id.map_or(Self::File(text), Self::Pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_a_file_unless_it_has_an_id() {
        let pieces = UploadName::Pieces(UploadId::new(7).unwrap());
        assert_eq!(pieces.to_string(), "postgres:7");
        assert_eq!(UploadName::of("postgres:7".to_owned()), pieces);
        for name in ["5f.rows", "postgres:", "postgres:0", "postgres:x", "postgres:07", "7"] {
            let file = UploadName::File(name.to_owned());
            assert_eq!(file.to_string(), name);
            assert_eq!(UploadName::of(name.to_owned()), file);
        }
    }
}
