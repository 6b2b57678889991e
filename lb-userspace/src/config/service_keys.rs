//! A service by itself, as the keys that it has in the configuration: how the API takes and tells it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::files::parse_text;
use super::render::render_service;
use crate::model::Service;

/// The keys of a `[[service]]` section of the configuration and their values: numbers, texts, and objects and arrays of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct ServiceKeys(pub Map<String, Value>);

/// A document with one service.
#[derive(Serialize)]
struct Document {
    service: [toml::Table; 1],
}

/// The service that keys describe, or all that is wrong with it, a sentence each.
pub fn read_service(keys: &ServiceKeys) -> Result<Service, Vec<String>> {
    let table = serde_json::from_value(Value::Object(keys.0.clone()));
    let table = table.map_err(|_| vec!["null is no value of any key; leave the key out".to_owned()])?;
    let text = toml::to_string(&Document { service: [table] }).map_err(|error| vec![error.to_string()])?;
    let name = keys.0.get("name").and_then(Value::as_str).unwrap_or_default();
    let read = parse_text(&text, Path::new("service")).map_err(|error| {
        // The lines are of no text that anybody has seen, and the name is known.
        let own = format!("service {name}: ");
        let told = error.mistakes.into_iter().map(|mistake| {
            let field = mistake.field.strip_prefix(&own).unwrap_or(&mistake.field);
            if field.is_empty() { mistake.message } else { format!("{field}: {}", mistake.message) }
        });
        told.collect::<Vec<_>>()
    })?;
    let service = read.desired.services.values().next().cloned();
    service.ok_or_else(|| vec!["there is no service in it".to_owned()])
}

/// The keys that describe a service; what is as usual is left out.
pub fn service_keys(service: &Service) -> ServiceKeys {
    let document: Result<BTreeMap<String, Vec<ServiceKeys>>, _> = toml::from_str(&render_service(service));
    // It has been written as the parser reads it.
    debug_assert!(document.is_ok(), "{document:?}");
    document.ok().and_then(|mut document| document.remove("service")?.pop()).unwrap_or_default()
}

/// Keys as a section of the configuration, for people.
pub(crate) fn render_keys(keys: &ServiceKeys) -> String {
    // They came from a section.
    read_service(keys)
        .map_or_else(|_| Value::Object(keys.0.clone()).to_string(), |service| render_service(&service))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::render_tests::desired;
    use super::*;

    fn read(value: Value) -> Result<Service, Vec<String>> {
        read_service(&serde_json::from_value(value).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_told_of_a_service_makes_the_same_service(desired in desired()) {
            for service in desired.services.values() {
                prop_assert_eq!(read_service(&service_keys(service)), Ok(service.clone()));
            }
        }
    }

    #[test]
    fn mistakes_name_their_keys() {
        let wrong = json!({
            "name": "web", "vip": "192.0.2.10", "protocol": "tcp", "mode": "ipip", "table_size": 10,
            "backends": [{"address": "10.0.0.300:80"}], "colour": "red"
        });
        let told = read(wrong).unwrap_err();
        let begins = |words: &str| told.iter().any(|sentence| sentence.starts_with(words));
        for words in ["vip: ", "table_size: ", "backends[0].address: ", "colour: "] {
            assert!(begins(words), "{words}: {told:?}");
        }
        assert_eq!(
            read(json!({"name": null})).unwrap_err(),
            ["null is no value of any key; leave the key out"]
        );
        assert!(read(json!({})).unwrap_err()[0].contains("name"));
    }
}
