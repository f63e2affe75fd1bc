//! Reads the values of a JSON object by column.

use std::{borrow::Cow, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Columns, RowDefect,
    bounded_text::BoundedText,
    cells::Cells,
    header::{Names, UnknownNames, normal_name},
};

/// Finds the values of known columns in an object's text.
pub(super) struct ObjectReader {
    /// The text as it is in the file.
    pub(super) text: BoundedText,
    /// The line on which it begins.
    pub(super) line: u64,
    /// The range in the text of each known column's value.
    values: Vec<Option<Range<usize>>>,
    defect: Option<RowDefect>,
    ignored: &'static [&'static str],
    /// Whether each known column may be an object.
    may_nest: Vec<bool>,
}

/// One object.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    text: &'a [u8],
    values: &'a [Option<Range<usize>>],
    may_nest: &'a [bool],
    is_whole: bool,
}

impl ObjectReader {
    pub(super) fn new(columns: &Columns) -> Self {
        Self {
            text: BoundedText::default(),
            line: 0,
            values: Vec::new(),
            defect: None,
            ignored: columns.ignored,
            may_nest: columns.with_values().map(|name| columns.objects.contains(&name)).collect(),
        }
    }

    /// Parses the collected text.
    pub(super) fn read(&mut self, names: &mut Names) {
        self.defect = self.parse(names).err();
    }

    fn parse(&mut self, names: &mut Names) -> Result<(), RowDefect> {
        if self.text.is_too_long() {
            return Err(RowDefect::too_long());
        }
        let text = std::str::from_utf8(self.text.bytes())
            .map_err(|_| RowDefect::of_row("encoding", "must be valid UTF-8"))?;
        self.values.clear();
        self.values.resize(names.known.len(), None);
        let mut repeated = None;
        let members = Members {
            text,
            repeated: &mut repeated,
            known: &names.known,
            ignored: self.ignored,
            values: &mut self.values,
            unknown: &mut names.unknown,
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let is_object = text.trim_ascii_start().starts_with('{');
        let read = if is_object {
            json.deserialize_map(members)
        } else {
            json.deserialize_ignored_any(IgnoredAny).map(drop)
        };
        match (read.and_then(|()| json.end()), repeated) {
            (Ok(()), Some(name)) => {
                Err(RowDefect::of_value(name, "repeated", "must be given only once"))
            }
            (Ok(()), None) if is_object => Ok(()),
            (Ok(()), None) => Err(RowDefect::of_row("not_an_object", "must be a JSON object")),
            (Err(error), _) => {
                let error = error.to_string();
                // The error's line and column count from the beginning of the row, not of the file.
                let reason = error.rsplit_once(" at line ").map_or(&*error, |(reason, _)| reason);
                Err(RowDefect::of_row("malformed_json", format!("must be valid JSON: {reason}")))
            }
        }
    }

    /// The object that was read last.
    pub(super) fn object(&self) -> Object<'_> {
        Object {
            text: self.text.bytes(),
            values: &self.values,
            may_nest: &self.may_nest,
            is_whole: self.defect.is_none(),
        }
    }

    /// The defect of the object that was read last.
    pub(super) fn defect(&self) -> Option<&RowDefect> {
        self.defect.as_ref()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.values.capacity() * size_of::<Option<Range<usize>>>()
    }
}

/// Records the ranges of the values of known members.
struct Members<'t, 's> {
    text: &'t str,
    /// The first known member that is given twice.
    repeated: &'s mut Option<&'static str>,
    known: &'s [&'static str],
    ignored: &'static [&'static str],
    values: &'s mut [Option<Range<usize>>],
    unknown: &'s mut UnknownNames,
}

impl<'t> Visitor<'t> for Members<'t, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut members: A) -> Result<(), A::Error> {
        loop {
            let name =
                Name { known: self.known, ignored: self.ignored, unknown: &mut *self.unknown };
            let Some(column) = members.next_key_seed(name)? else {
                return Ok(());
            };
            match column.and_then(|column| self.values.get_mut(column)) {
                Some(value) => {
                    let raw: &'t RawValue = members.next_value()?;
                    let begin = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
                    if value.replace(begin..begin + raw.get().len()).is_some() {
                        let name = column.and_then(|column| self.known.get(column)).copied();
                        *self.repeated = self.repeated.or(name);
                    }
                }
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// A member's name, which becomes the column's index.
struct Name<'s> {
    known: &'s [&'static str],
    ignored: &'static [&'static str],
    unknown: &'s mut UnknownNames,
}

impl<'t> DeserializeSeed<'t> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'t>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let column = self.known.iter().position(|known| *known == name);
        if column.is_some() || self.ignored.contains(&name) {
            return Ok(column);
        }
        let name = normal_name(name);
        let column = self.known.iter().position(|known| *known == name);
        if column.is_none() && !self.ignored.contains(&name.as_str()) {
            self.unknown.note(&name);
        }
        Ok(column)
    }
}

impl<'a> Object<'a> {
    fn json(&self, column: usize) -> Option<&'a str> {
        let range = self.values.get(column)?.clone()?;
        std::str::from_utf8(self.text.get(range)?).ok()
    }

    /// Whether the object has the known column.
    pub(super) fn has(&self, column: usize) -> bool {
        self.values.get(column).is_some_and(Option::is_some)
    }

    /// Whether the object has the known column with null.
    pub(super) fn is_null(&self, column: usize) -> bool {
        self.json(column) == Some("null")
    }

    /// The text of a known column; `None` for null.
    pub(super) fn value(
        &self,
        column: usize,
        name: &'static str,
    ) -> Result<Option<Cow<'a, str>>, RowDefect> {
        let Some(json) = self.json(column) else {
            return Ok(None);
        };
        let may_nest = self.may_nest.get(column) == Some(&true);
        match json.as_bytes().first() {
            Some(b'"') => match unquoted(json) {
                Some(text) => Ok(Some(text)),
                None => Err(RowDefect::of_value(name, "encoding", "must be valid Unicode")),
            },
            Some(b'{') if may_nest => Ok(Some(json.into())),
            Some(b'{' | b'[') => {
                let expected = if may_nest { "an object" } else { "text, a number or a boolean" };
                Err(RowDefect::of_value(name, "wrong_type", &format!("must be {expected}")))
            }
            _ if json == "null" => Ok(None),
            _ => Ok(Some(json.into())),
        }
    }

    /// Returns the values as uploaded, or the whole text if it could not be parsed.
    pub(super) fn write_cells(&self, cells: &mut Cells) {
        if !self.is_whole {
            cells.push(self.text);
            return;
        }
        for column in 0..self.values.len() {
            let json = self.json(column).filter(|json| *json != "null").unwrap_or_default();
            let text = unquoted(json).unwrap_or(json.into());
            if !cells.push(text.as_bytes()) {
                break;
            }
        }
    }
}

/// The content of a JSON string; `None` for another value, or for a lone surrogate.
fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Some(text.into());
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// Whether the byte is white space between JSON tokens.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
