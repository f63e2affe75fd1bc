//! Short codes in the order in which a generator requests them.

use std::{fs, io, path::Path};

use crate::links::CODE_LENGTH;

/// A file with one code per line, each [`CODE_LENGTH`] characters long.
pub struct CodeList(String);

impl CodeList {
    /// Reads the file. An empty or malformed file is an error.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(fs::read_to_string(path)?)
            .ok_or_else(|| io::Error::other("not a list of codes"))
    }

    pub(crate) fn parse(text: String) -> Option<Self> {
        let is_valid = text.is_ascii()
            && !text.is_empty()
            && text.split_terminator('\n').all(|line| line.len() == CODE_LENGTH)
            && text.ends_with('\n');
        is_valid.then_some(Self(text))
    }

    /// Number of codes, at least 1.
    pub fn len(&self) -> usize {
        self.0.len() / (CODE_LENGTH + 1)
    }

    /// Always false, because an empty file is an error.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        let start = index.checked_mul(CODE_LENGTH + 1)?;
        self.0.get(start..start + CODE_LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_index_and_a_malformed_one_is_rejected() {
        let list = CodeList::parse("abcdefg\nhijklmn\n".into()).unwrap();
        assert_eq!((list.len(), list.get(1), list.get(2)), (2, Some("hijklmn"), None));
        for malformed in ["", "\n", "abcdefg", "abcdef\n", "abcdefgh\n", "abcdefé\n"] {
            assert!(CodeList::parse(malformed.into()).is_none(), "{malformed:?}");
        }
    }
}
