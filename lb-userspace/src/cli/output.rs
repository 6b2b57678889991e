//! The forms of what stands on stdout.

use std::io;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// The form of what stands on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// As table, with the columns that few need
    Wide,
    /// For programs
    Json,
    /// For programs, and people who like it
    Yaml,
    /// The names alone, a line each, for scripts
    Name,
}

impl Output {
    /// A value in this form; `table` makes it one for people.
    pub(super) fn render<T: Serialize + ?Sized>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> io::Result<String> {
        Ok(match self {
            Self::Table | Self::Wide => table(value),
            Self::Json => serde_json::to_string_pretty(value)? + "\n",
            Self::Yaml => serde_yaml_ng::to_string(value).map_err(io::Error::other)?,
            Self::Name => names(&serde_json::to_value(value)?).concat(),
        })
    }
}

/// What can be called the name of something: the first of these keys that it has.
const NAMES: [&str; 7] = ["name", "address", "generation", "source", "limiter", "hash", "backend"];

/// The names of all that a list has, or of one thing, with the ends of their lines. What has none is told as it is.
fn names(value: &Value) -> Vec<String> {
    let line = |value: &Value| match value {
        Value::String(text) => format!("{text}\n"),
        other => format!("{other}\n"),
    };
    match value {
        Value::Array(items) => items.iter().flat_map(names).collect(),
        Value::Object(keys) => match (NAMES.iter().find_map(|name| keys.get(*name)), keys.get("prefixes")) {
            (Some(name), _) => vec![line(name)],
            (None, Some(prefixes)) => names(prefixes),
            (None, None) => vec![line(value)],
        },
        other => vec![line(other)],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(output: Output, value: &Value) -> String {
        output.render(value, |_| "table\n".to_owned()).unwrap()
    }

    #[test]
    fn names_are_a_line_each() {
        let cases = [
            (json!([{"name": "web", "vip": "192.0.2.10:80"}, {"name": "api"}]), "web\napi\n"),
            (json!([{"address": "10.0.1.1:80", "weight": 5}]), "10.0.1.1:80\n"),
            (json!([{"generation": 4, "origin": "command"}]), "4\n"),
            (json!({"prefixes": ["10.0.0.0/8", "2001:db8::/32"]}), "10.0.0.0/8\n2001:db8::/32\n"),
            (json!([]), ""),
            (json!({"version": 1}), "{\"version\":1}\n"),
        ];
        for (value, expected) in cases {
            assert_eq!(render(Output::Name, &value), expected);
        }
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let value = json!({"services": [{"name": "yes", "port": 80, "limit": null, "share": 0.5}]});
        let yaml = render(Output::Yaml, &value);
        assert_eq!(yaml, "services:\n- name: yes\n  port: 80\n  limit: null\n  share: 0.5\n");
        assert_eq!(serde_json::from_str::<Value>(&render(Output::Json, &value)).unwrap(), value);
        assert_eq!(render(Output::Table, &value), "table\n");
    }
}
