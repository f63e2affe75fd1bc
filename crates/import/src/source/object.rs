//! JSON objects as rows.

use std::{borrow::Cow, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Columns, RowDefect,
    cells::Cells,
    header::{Names, UnknownNames},
    kept::Kept,
    row::{Content, Row},
};

/// Finds the values of known columns in an object's text.
pub(super) struct ObjectReader {
    /// The text, as it stands in the file.
    pub(super) text: Kept,
    /// The line on which it begins.
    pub(super) line: u64,
    /// Where in the text the value of each known column is.
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
            text: Kept::default(),
            line: 0,
            values: Vec::new(),
            defect: None,
            ignored: columns.ignored,
            may_nest: columns.with_values().map(|name| columns.objects.contains(&name)).collect(),
        }
    }

    /// Reads the text that was collected.
    pub(super) fn read(&mut self, names: &mut Names) {
        self.defect = self.parse(names).err();
    }

    fn parse(&mut self, names: &mut Names) -> Result<(), RowDefect> {
        if self.text.is_too_long() {
            return Err(RowDefect::too_long());
        }
        let text = std::str::from_utf8(self.text.bytes())
            .map_err(|_| RowDefect::of_row("encoding", "is not valid UTF-8"))?;
        self.values.clear();
        self.values.resize(names.known.len(), None);
        let members = Members {
            text,
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
        match read.and_then(|()| json.end()) {
            Ok(()) if is_object => Ok(()),
            Ok(()) => Err(RowDefect::of_row("not_an_object", "is JSON, but not an object")),
            Err(error) => {
                let error = error.to_string();
                // Its line and column are those of the row's text, not of the file.
                let reason = error.rsplit_once(" at line ").map_or(&*error, |(reason, _)| reason);
                Err(RowDefect::of_row("malformed_json", format!("is not valid JSON: {reason}")))
            }
        }
    }

    /// The object that was read last.
    pub(super) fn row<'a>(&'a self, names: &'a Names) -> Row<'a> {
        let defect = self.defect.as_ref();
        let content = Content::Object(Object {
            text: self.text.bytes(),
            values: &self.values,
            may_nest: &self.may_nest,
            is_whole: defect.is_none(),
        });
        Row { line: self.line, defect, names, content }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.values.capacity() * size_of::<Option<Range<usize>>>()
    }
}

/// What becomes of an object's members.
struct Members<'t, 's> {
    text: &'t str,
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
                    *value = Some(begin..begin + raw.get().len());
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
        if column.is_none() && !self.ignored.contains(&name) {
            self.unknown.note(name);
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

    /// The text of a known column; null is none.
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
                None => Err(RowDefect::of_value(name, "encoding", "is not valid Unicode")),
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

    /// Gives the values back, or all of the text if it is not to be understood.
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

/// What a JSON string says; `None` if it is none, or half a character is escaped in it.
fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Some(text.into());
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// White space between JSON's tokens.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
