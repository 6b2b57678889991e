//! Bearer tokens (RFC 6750): a file of their digests, from which no token can be had.

use std::path::Path;

use super::document::{Log, Node, Section};
use super::files::unreadable;
use super::hash_key::decode;
use super::{ConfigError, check_name};

/// How to make a token, the end of messages about digests.
const RECIPE: &str = "make one with: printf %s \"$TOKEN\" | sha256sum";

/// The SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// What a client of the API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ask what there is.
    Reader,
    /// Change it too.
    Writer,
}

/// One token, as far as the daemon knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is called in logs and messages.
    pub name: String,
    /// What who has it may do.
    pub role: Role,
    /// Of the token's text.
    pub digest: TokenDigest,
    /// Its last day, in UTC; without one it is good until it is taken out of the file.
    pub expires: Option<Day>,
}

/// A day in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// As it was written: `2027-01-31`.
    pub text: String,
    /// When it is over, in seconds since 1970.
    pub end: u64,
}

/// Reads `file`: `[[token]]` sections of `name`, `role`, `sha256` and perhaps `expires`.
///
/// A mistake is told without what stands there: it may be a token itself, put where its digest should be.
pub fn read_tokens(file: &Path) -> Result<Vec<Token>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    parse_tokens(&text, file)
}

fn parse_tokens(text: &str, file: &Path) -> Result<Vec<Token>, ConfigError> {
    let log = Log::new(file, text, None);
    let document = log.parse();
    let mut tokens: Vec<Token> = Vec::new();
    if let Some(document) = &document {
        let root = Section::root(&log, document.get_ref(), &["token"]);
        let nodes = root.optional("token").and_then(|node| node.items("[[token]] sections"));
        for node in nodes.unwrap_or_default() {
            let Some(token) = read_token(&node) else { continue };
            if let Some(same) = tokens.iter().find(|one| one.name == token.name || one.digest == token.digest)
            {
                node.note(format!("has the name or the digest of token {} above", same.name));
            }
            tokens.push(token);
        }
    }
    if log.is_clean() { Ok(tokens) } else { Err(ConfigError { mistakes: log.into_mistakes() }) }
}

fn read_token(node: &Node<'_>) -> Option<Token> {
    let section = node.section(&["name", "role", "sha256", "expires"])?;
    let name = section.required("name", "name = \"deploy\"").and_then(|node| {
        let name = node.text()?;
        check_name(name).map_err(|error| node.note(error.to_string())).ok().map(|()| name.to_owned())
    });
    let role = section.required("role", "role = \"read\" or role = \"write\"");
    let digest = section.required("sha256", "the SHA-256 of the token");
    let expires = section.optional("expires").map(|node| node.read_with(parse_day));
    Some(Token {
        name: name?,
        role: role.and_then(|node| node.word(&[("read", Role::Reader), ("write", Role::Writer)]))?,
        digest: digest.and_then(|node| node.read_with(parse_digest))?,
        expires: expires.map_or(Some(None), |day| day.map(Some))?,
    })
}

fn parse_digest(text: &str) -> Result<TokenDigest, String> {
    decode(text.as_bytes())
        .ok_or_else(|| format!("expected 64 hexadecimal digits, the SHA-256 of the token; {RECIPE}"))
}

/// The calendar is Howard Hinnant's `days_from_civil`.
fn parse_day(text: &str) -> Result<Day, String> {
    let wrong = || format!("{text:?} is no day such as \"2027-01-31\"");
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let [Some(year @ 1970..=9999), Some(month @ 1..=12), Some(day @ 1..=31)] =
        [(); 3].map(|()| parts.next().flatten())
    else {
        return Err(wrong());
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > longest || text.len() != 10 {
        return Err(wrong());
    }
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Ok(Day { text: text.to_owned(), end: (days + 1) * 86_400 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn parse(text: &str) -> Result<Vec<Token>, String> {
        parse_tokens(text, Path::new("tokens.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_have_a_name_a_role_and_perhaps_an_end() {
        let text = format!(
            "[[token]]\nname = \"deploy\"\nrole = \"write\"\nsha256 = \"{DIGEST}\"\nexpires = \"2027-01-31\"\n\
             [[token]]\nname = \"watch\"\nrole = \"read\"\nsha256 = \"{}\"\n",
            "0A".repeat(32)
        );
        let [deploy, watch] = parse(&text).unwrap().try_into().unwrap();
        assert_eq!((deploy.name.as_str(), deploy.role, deploy.digest[0]), ("deploy", Role::Writer, 0x2c));
        // date -u -d '2027-02-01' +%s
        assert_eq!(deploy.expires, Some(Day { text: "2027-01-31".to_owned(), end: 1_801_440_000 }));
        assert_eq!((watch.role, watch.digest, watch.expires), (Role::Reader, [10; 32], None));
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn days_end_at_midnight() {
        let end = |text| parse_day(text).map(|day| day.end);
        // date -u -d DAY+1day +%s
        let days = [("1970-01-01", 86_400), ("2000-02-29", 951_868_800), ("2026-12-31", 1_798_761_600)];
        for (day, expected) in days {
            assert_eq!(end(day), Ok(expected), "{day}");
        }
        for wrong in
            ["2027-02-29", "2027-1-31", "2027-13-01", "2027-04-31", "1969-12-31", "tomorrow", "2027-01"]
        {
            assert!(end(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn mistakes_are_told_and_secrets_are_not() {
        let secret = "hunter2";
        let text = format!("[[token]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"{secret}\"\n");
        let error = parse(&text).unwrap_err();
        let expected = "tokens.toml:4: token[0].sha256: expected 64 hexadecimal digits, the SHA-256 of the \
            token; make one with: printf %s \"$TOKEN\" | sha256sum";
        assert_eq!(error, expected);
        let token =
            |name, digest| format!("[[token]]\nname = \"{name}\"\nrole = \"read\"\nsha256 = \"{digest}\"\n");
        let twice = parse(&(token("a", DIGEST) + &token("b", DIGEST))).unwrap_err();
        assert_eq!(twice, "tokens.toml:5: token[1]: has the name or the digest of token a above");
        let role = parse(&token("a", DIGEST).replace("read", "root")).unwrap_err();
        assert_eq!(role, "tokens.toml:3: token[0].role: \"root\" is unknown; expected \"read\" or \"write\"");
    }
}
