//! The cells of a bad row, as one text.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The cells of a row as it was uploaded: the text of a JSON array of strings.
///
/// A row may have 1,000 cells of a few bytes. As separate strings, they use a multiple of the memory that they have as
/// one text. Code that handles many rows at once therefore keeps the text, and splits it for one row at a time. Clones
/// share the text.
#[derive(Clone, PartialEq, Eq)]
pub struct RowCells(Arc<str>);

impl RowCells {
    /// Wraps the text of a JSON array of strings.
    pub fn from_json(json: String) -> Self {
        Self(json.into())
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        matches!(&*self.0, "" | "[]")
    }

    /// The text, which is valid JSON.
    pub fn as_json(&self) -> &str {
        if self.0.is_empty() { "[]" } else { &self.0 }
    }

    /// The cells.
    pub fn to_vec(&self) -> Vec<String> {
        serde_json::from_str(self.as_json()).unwrap_or_default()
    }
}

impl Default for RowCells {
    /// No cell.
    fn default() -> Self {
        Self::from_json(String::new())
    }
}

impl From<&[&str]> for RowCells {
    fn from(cells: &[&str]) -> Self {
        Self::from_json(serde_json::json!(cells).to_string())
    }
}

impl fmt::Debug for RowCells {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_json())
    }
}

impl Serialize for RowCells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: &RawValue =
            serde_json::from_str(self.as_json()).map_err(serde::ser::Error::custom)?;
        json.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_serialized_as_an_array() {
        for (json, cells) in [("", &[][..]), ("[]", &[]), (r#"["a\"", ""]"#, &["a\"", ""])] {
            let text = RowCells::from_json(json.to_owned());
            assert_eq!(text.to_vec(), cells);
            assert_eq!(text.is_empty(), cells.is_empty());
            assert_eq!(serde_json::to_value(&text).unwrap(), serde_json::json!(cells));
        }
    }
}
