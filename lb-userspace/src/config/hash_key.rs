//! The key of the flow hash: 128 bits that all balancers of one VIP share and no sender may know.

use std::io;
use std::path::{Path, PathBuf};

/// How to make a key, the end of every message.
const RECIPE: &str = "make one with: head -c16 /dev/urandom | od -An -tx1 | tr -d ' \\n'";

/// Why a file holds no hash key.
#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    /// The file cannot be read.
    #[error("cannot read the hash key {}: {source}; {RECIPE}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file holds something else. The content stays out of the message: it may be a secret.
    #[error("the hash key {} is not 32 hexadecimal digits; {RECIPE}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
}

impl HashKeyError {
    /// What to say when `file` cannot be read.
    pub fn unreadable(file: &Path, source: io::Error) -> Self {
        Self::Unreadable { file: file.to_owned(), source }
    }
}

/// Reads a key of 32 hexadecimal digits; one newline may follow.
pub fn read_hash_key(file: &Path) -> Result<[u8; 16], HashKeyError> {
    let bytes = std::fs::read(file).map_err(|source| HashKeyError::unreadable(file, source))?;
    let digits = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    decode(digits).ok_or_else(|| HashKeyError::Malformed { file: file.to_owned() })
}

/// Exactly `N` bytes, each of two hexadecimal digits.
pub(super) fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let nibbles: Option<Vec<u8>> = digits.iter().map(|digit| nibble(*digit)).collect();
    let (pairs, rest) = nibbles.as_ref()?.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<[u8; 16], String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hash.key");
        std::fs::write(&file, content).unwrap();
        let place = format!("{}/", folder.path().display());
        read_hash_key(&file).map_err(|error| error.to_string().replace(&place, ""))
    }

    #[test]
    fn a_key_is_32_digits_and_perhaps_a_newline() {
        let key = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xff];
        assert_eq!(read("000102030405060708090a0b0c0d0eff"), Ok(key));
        assert_eq!(read("000102030405060708090A0B0C0D0EFF\n"), Ok(key));
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_recipe_and_without_the_key() {
        let sentence = "the hash key hash.key is not 32 hexadecimal digits; make one with: head -c16 \
            /dev/urandom | od -An -tx1 | tr -d ' \\n'";
        for content in
            ["", "00", "000102030405060708090a0b0c0d0ef", "000102030405060708090a0b0c0d0eff00", "\u{e9}\n"]
        {
            assert_eq!(read(content), Err(sentence.to_owned()), "{content}");
        }
        assert_eq!(read(&"g".repeat(32)), Err(sentence.to_owned()));
        assert_eq!(read(&format!("{}\n\n", "0".repeat(32))), Err(sentence.to_owned()));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_hash_key(Path::new("/nonexistent/hash.key")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the hash key /nonexistent/hash.key: No such file"), "{error}");
    }
}
