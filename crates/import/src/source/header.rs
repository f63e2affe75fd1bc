//! The columns of a file, and which of them are known.

use super::{Columns, MAX_HEADER_BYTES, MAX_NAME_CHARS, MAX_UNKNOWN_COLUMNS, SourceError};

/// The names of a file's columns.
pub(super) struct Names {
    /// Known columns that have values. Readers identify columns by their index here.
    pub(super) known: Vec<&'static str>,
    /// The file's columns.
    pub(super) header: Vec<String>,
    pub(super) unknown: UnknownNames,
}

/// Unknown columns, once each, up to [`MAX_UNKNOWN_COLUMNS`] and [`MAX_HEADER_BYTES`].
#[derive(Default)]
pub(super) struct UnknownNames(Vec<String>);

impl Names {
    /// The names for objects, which have no header.
    pub(super) fn of_objects(columns: &Columns) -> Self {
        Self {
            known: columns.with_values().collect(),
            header: columns.with_values().map(str::to_owned).collect(),
            unknown: UnknownNames::default(),
        }
    }

    /// Reads a CSV header. Also returns the index in a record of each known column.
    pub(super) fn of_header<'a>(
        cells: impl Iterator<Item = &'a [u8]>,
        columns: &Columns,
    ) -> Result<(Self, Vec<Option<usize>>), SourceError> {
        let known: Vec<&'static str> = columns.with_values().collect();
        let mut places = vec![None; known.len()];
        let mut header = Vec::new();
        let mut unknown = UnknownNames::default();
        let mut has_nul = false;
        for (at, cell) in cells.enumerate() {
            let name = std::str::from_utf8(cell).map_err(|_| SourceError::HeaderEncoding)?;
            has_nul |= name.contains('\0');
            let name = normal_name(name);
            let index = known.iter().position(|known| *known == name);
            if let Some(index) = index
                && let Some(place) = places.get_mut(index)
                && let Some(known) = known.get(index)
                && place.replace(at).is_some()
            {
                return Err(SourceError::RepeatedColumn(known));
            }
            if index.is_none() && !columns.ignored.contains(&name.as_str()) {
                unknown.note(&name);
            }
            header.push(shown(&name));
        }
        let missing: Vec<&'static str> = known
            .iter()
            .zip(&places)
            .filter(|(name, place)| place.is_none() && columns.required.contains(name))
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() && has_nul {
            return Err(SourceError::OtherFormat("binary data"));
        }
        if !missing.is_empty() {
            return Err(cause_of_missing(missing, &header));
        }
        if header.iter().map(String::len).sum::<usize>() > MAX_HEADER_BYTES {
            return Err(SourceError::NamesTooLong);
        }
        Ok((Self { known, header, unknown }, places))
    }

    /// A known column's index among the known columns.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.known.iter().position(|known| *known == name)
    }
}

impl UnknownNames {
    pub(super) fn note(&mut self, name: &str) {
        if self.0.len() < MAX_UNKNOWN_COLUMNS {
            let name = shown(name);
            let bytes = self.0.iter().map(String::len).sum::<usize>() + name.len();
            if bytes <= MAX_HEADER_BYTES && !self.0.contains(&name) {
                self.0.push(name);
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// The spelling of a name by which columns are matched.
pub(super) fn normal_name(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The error for a header without required columns, by what the file probably is.
fn cause_of_missing(missing: Vec<&'static str>, header: &[String]) -> SourceError {
    match header.first().and_then(|cell| cell.chars().next()) {
        Some('[') => return SourceError::OtherFormat("JSON that was sent as CSV"),
        Some('{') => return SourceError::OtherFormat("JSON or NDJSON that was sent as CSV"),
        Some('<') => return SourceError::OtherFormat("HTML or XML"),
        _ => {}
    }
    let is_name =
        |name: &str| missing.iter().any(|missing| name.trim_matches([' ', '"']) == *missing);
    if header.iter().any(|cell| cell.contains('|') && cell.split('|').any(is_name)) {
        return SourceError::PipeDelimiter(missing);
    }
    SourceError::MissingColumns(missing)
}

fn shown(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
