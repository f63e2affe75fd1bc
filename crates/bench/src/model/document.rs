//! The generated tables of `docs/SCALE.md`: each is between two comments that name it.

use std::{fs, io, path::Path};

use super::{input_error::InputError, inputs::Inputs, measured::Measured, sections::sections};

/// The inputs of the repository's document.
pub const DEFAULT_INPUTS: &str = include_str!("../../scale.json");
/// The figures of the repository's document.
const DEFAULT_FIGURES: &str = include_str!("../../measured.json");

/// The figures of the repository's document.
pub fn default_measured() -> Result<Measured, InputError> {
    Ok(serde_json::from_str(DEFAULT_FIGURES)?)
}

/// The inputs of the repository's document, with its figures.
pub fn default_inputs() -> Result<Inputs, InputError> {
    Inputs::from_json(DEFAULT_INPUTS, default_measured()?)
}

/// Why the document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read or written.
    #[error("the document cannot be read or written")]
    Io(#[from] io::Error),
    /// A comment is missing.
    #[error("the document has no pair of comments `<!-- {0} -->` and `<!-- end of {0} -->`")]
    Mark(&'static str),
    /// A table is not what the inputs give.
    #[error(
        "the tables are out of date; write them with `cargo run -p linnet-bench --bin linnet-bench -- model --write`"
    )]
    Outdated,
}

/// Replaces the tables in the document. Returns the new text.
pub fn rendered(text: &str, inputs: &Inputs) -> Result<String, DocumentError> {
    let mut text = text.to_owned();
    for (name, section) in sections(inputs) {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = text.find(&begin).ok_or(DocumentError::Mark(name))? + begin.len();
        let to =
            text.get(from..).and_then(|rest| rest.find(&end)).ok_or(DocumentError::Mark(name))?
                + from;
        text.replace_range(from..to, &format!("\n{section}\n"));
    }
    Ok(text)
}

/// Writes the tables into the file.
pub fn write(path: &Path, inputs: &Inputs) -> Result<(), DocumentError> {
    let old = fs::read_to_string(path)?;
    let new = rendered(&old, inputs)?;
    if new != old {
        fs::write(path, &new)?;
    }
    Ok(())
}

/// Fails if the file has other tables.
pub fn check(path: &Path, inputs: &Inputs) -> Result<(), DocumentError> {
    let text = fs::read_to_string(path)?;
    if rendered(&text, inputs)? == text { Ok(()) } else { Err(DocumentError::Outdated) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_document_are_current() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SCALE.md"));
        let text = fs::read_to_string(path).unwrap();
        let inputs = default_inputs().unwrap();
        let rendered = rendered(&text, &inputs).unwrap();
        assert!(rendered == text, "{}", DocumentError::Outdated);
        // A table that the inputs do not give is found.
        let row = "| 1 k/s, 10 M links |";
        assert!(text.contains(row));
        let changed = text.replace(row, "| 1 k/s, 11 M links |");
        assert!(rendered != changed);
    }

    #[test]
    fn a_document_without_a_mark_is_an_error() {
        let inputs = default_inputs().unwrap();
        let error = rendered("# Scale", &inputs).unwrap_err().to_string();
        assert!(error.contains("<!-- costs -->"), "{error}");
    }
}
