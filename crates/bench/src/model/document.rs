//! The generated tables of `docs/SCALE.md`: each is between two comments that name it.

use std::{fs, io, path::Path};

use super::{inputs::Inputs, sections::sections};

/// The inputs of the repository's document.
pub const DEFAULT_INPUTS: &str = include_str!("../../scale.json");

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
    #[error("the tables are out of date; write them with `cargo run -p linnet-bench --bin linnet-bench -- model --write`")]
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
    use crate::model::validation::{measured_us, predict};

    #[test]
    fn tables_of_the_document_are_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SCALE.md");
        let inputs = Inputs::from_json(DEFAULT_INPUTS).unwrap();
        check(Path::new(path), &inputs).unwrap();
        let other = Inputs::from_json(&DEFAULT_INPUTS.replace("\"handshakes\": 0.", "\"handshakes\": 3.")).unwrap();
        assert!(matches!(check(Path::new(path), &other), Err(DocumentError::Outdated)));
    }

    #[test]
    fn predictions_are_within_a_fifth_of_what_was_measured() {
        let inputs = Inputs::from_json(DEFAULT_INPUTS).unwrap();
        assert!(inputs.measured.len() >= 3);
        for run in &inputs.measured {
            let (predicted, measured) = (predict(&inputs, run).total_us(), measured_us(run));
            assert!(
                (predicted / measured - 1.0).abs() <= 0.2,
                "{} links: {predicted} µs, measured {measured}",
                run.links
            );
        }
    }

    #[test]
    fn a_document_without_a_mark_is_an_error() {
        let inputs = Inputs::from_json(DEFAULT_INPUTS).unwrap();
        let error = rendered("# Scale", &inputs).unwrap_err().to_string();
        assert!(error.contains("<!-- costs -->"), "{error}");
    }
}
