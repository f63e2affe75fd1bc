//! Splits a JSON array into its elements.
//!
//! * Brackets, strings and escapes determine where an element ends. Its content is parsed later.
//! * Only a comma is accepted between elements: after anything else the bounds of elements are uncertain.

use std::io::{Read, Seek};

use memchr::memchr2;

use super::{
    Columns, SourceError,
    header::Names,
    input::Input,
    object::{ObjectReader, is_blank},
};

/// Reads elements.
pub(super) struct ArrayReader {
    pub(super) objects: ObjectReader,
    /// Whether no element has been read yet.
    pub(super) is_first: bool,
}

impl ArrayReader {
    /// Finds the `[`.
    pub(super) fn open<R: Read + Seek>(
        input: &mut Input<R>,
        columns: &Columns,
    ) -> Result<Self, SourceError> {
        match next_byte(input)? {
            None => Err(SourceError::Empty),
            Some(b'[') => {
                input.take(1);
                Ok(Self { objects: ObjectReader::new(columns), is_first: true })
            }
            Some(_) => Err(SourceError::NotAnArray),
        }
    }

    /// Reads the next element; `false` at the end of the array. Text after the array is an error.
    pub(super) fn read<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        names: &mut Names,
    ) -> Result<bool, SourceError> {
        let mut next = next_byte(input)?;
        if next == Some(b']') {
            input.take(1);
            return match next_byte(input)? {
                None => Ok(false),
                Some(_) => Err(syntax(input, "the array must be the end of the file")),
            };
        }
        if !self.is_first {
            match next {
                None => return Err(syntax(input, "the file must not end inside the array")),
                Some(b',') => input.take(1),
                Some(_) => return Err(syntax(input, "a comma or `]` must be before this")),
            }
            next = next_byte(input)?;
        }
        self.objects.line = input.place().line;
        self.objects.text.clear();
        match next {
            None => return Err(syntax(input, "the file must not end inside the array")),
            Some(b',' | b']' | b'}' | b':') => {
                return Err(syntax(input, "an element of the array must be before this"));
            }
            Some(b'{' | b'[' | b'"') => self.collect(input, &mut Nesting::default())?,
            Some(_) => self.collect(input, &mut Word)?,
        }
        self.objects.read(names);
        self.is_first = false;
        Ok(true)
    }

    fn collect<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        extent: &mut impl Extent,
    ) -> Result<(), SourceError> {
        loop {
            let bytes = input.fill()?;
            if bytes.is_empty() {
                let message =
                    "the file must not end inside the element that begins here".to_owned();
                return Err(SourceError::Syntax { line: self.objects.line, message });
            }
            let end = extent.end(bytes);
            let element = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            self.objects.text.push(element);
            let taken = element.len();
            input.take(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

/// Finds the end of an element in successive pieces of the file.
trait Extent {
    /// The number of these bytes that belong to the element; `None` if it continues after them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize>;
}

/// An element that is an object, an array or a string.
#[derive(Default)]
struct Nesting {
    depth: u64,
    in_string: bool,
    /// Whether the last byte was a `\` that escapes the next one.
    is_escaped: bool,
}

impl Extent for Nesting {
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.is_escaped {
                self.is_escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                at += memchr2(b'"', b'\\', rest)? + 1;
                self.is_escaped = bytes.get(at - 1) == Some(&b'\\');
                self.in_string = self.is_escaped;
            } else {
                let is_mark = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']');
                at += rest.iter().position(is_mark)? + 1;
                match bytes.get(at - 1) {
                    Some(b'"') => self.in_string = true,
                    Some(b'{' | b'[') => self.depth += 1,
                    _ => self.depth -= 1,
                }
            }
            if self.depth == 0 && !self.in_string {
                return Some(at);
            }
        }
        None
    }
}

/// Any other element: a number, a literal, or invalid text.
struct Word;

impl Extent for Word {
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|byte| {
            is_blank(*byte) || matches!(byte, b',' | b':' | b'"' | b'{' | b'[' | b'}' | b']')
        })
    }
}

/// The next byte that is not white space, without consuming it.
fn next_byte<R: Read + Seek>(input: &mut Input<R>) -> Result<Option<u8>, SourceError> {
    input.skip_while(is_blank)?;
    Ok(input.fill()?.first().copied())
}

fn syntax<R: Read + Seek>(input: &Input<R>, message: &str) -> SourceError {
    SourceError::Syntax { line: input.place().line, message: message.to_owned() }
}
