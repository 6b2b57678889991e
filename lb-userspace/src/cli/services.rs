//! `lb service`: services listed, shown and changed.

use clap::Subcommand;
use serde_json::Value;

use super::args::parse_key;
use super::keys::{KeyChanges, key_changes};
use super::{Failure, Screen, block_on, screens};
use crate::client::{Client, ClientError};
use crate::config::{ServiceKeys, render_keys};
use crate::view::Applied;

/// Show and change services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List all services
    #[command(after_help = "Examples:\n  lb service list\n  lb service list -o json | jq '.[].name'")]
    List,
    /// Show a service as the configuration would have it
    #[command(
        after_help = "Examples:\n  lb service show web\n  lb service show web -o json | jq .table_size\n\nHow it is at work show lb \
                      service list and lb backend list."
    )]
    Show {
        /// The service's name
        service: String,
    },
    /// Add a service; its keys are those of the configuration
    #[command(
        after_help = "Examples:\n  lb service add web 192.0.2.10:80 protocol=tcp mode=dsr-l2\n  lb service add dns \
                      '[2001:db8::53]:53' protocol=udp mode=ipip idle_timeout=30s\n  lb service add api 192.0.2.11:443 \
                      protocol=tcp mode=gue 'backends=[{address=\"10.0.1.1:443\"}]'\n\nA value that begins with [ or { is one \
                      of TOML. Backends can be added later, with lb backend add."
    )]
    Add {
        /// Its name: letters, digits, `-`, `_` and `.`
        service: String,
        /// Its ADDRESS:PORT, with * for every port
        vip: String,
        /// Its keys and their values
        #[arg(value_name = "KEY=VALUE", value_parser = parse_key)]
        keys: Vec<(String, String)>,
    },
    /// Change keys of a service, or take them away by an empty value; the others stay
    #[command(after_help = "Examples:\n  lb service set web slow_start=30s\n  lb service set web \
                      'health={kind=\"tcp\",interval=\"1s\"}' drain_timeout=5m\n  lb service set web slow_start=")]
    Set {
        /// The service's name
        service: String,
        /// Its keys and their values
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = parse_key)]
        keys: Vec<(String, String)>,
    },
    /// Remove a service with all its backends and the flows that they have
    #[command(
        after_help = "Example:\n  lb service delete web\n\nlb config rollback brings it back, but no flows."
    )]
    Delete {
        /// The service's name
        service: String,
    },
}

/// How often a change is tried when others change something at the same time.
const ATTEMPTS: usize = 10;

pub(super) fn run(command: &ServiceCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let applied: Applied = match command {
        ServiceCommand::List => {
            let services = block_on(client.services())??;
            return screen.show_fitted(&services[..], screens::services);
        }
        ServiceCommand::Show { service } => {
            let (keys, _) = block_on(client.service(service))??;
            return screen.show(&keys, render_keys);
        }
        ServiceCommand::Add { service, vip, keys } => {
            let mut all = ServiceKeys::default();
            change(&mut all, &key_changes(keys)?);
            for (key, value) in [("name", service), ("vip", vip)] {
                all.0.insert(key.to_owned(), Value::String(value.clone()));
            }
            block_on(client.add_service(&all))??
        }
        ServiceCommand::Set { service, keys } => block_on(set(client, service, &key_changes(keys)?))??,
        ServiceCommand::Delete { service } => block_on(client.remove_service(service))??,
    };
    screen.show(&applied, screens::applied)
}

/// Changes some keys of the service as it is. If somebody else changes something meanwhile it begins anew.
async fn set(client: &Client, service: &str, keys: &KeyChanges<'_>) -> Result<Applied, ClientError> {
    let mut attempt = 1;
    loop {
        let (mut all, tag) = client.service(service).await?;
        change(&mut all, keys);
        match client.expecting(tag).set_service(service, &all).await {
            Err(ClientError::Problem(problem)) if problem.status == 412 && attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn change(all: &mut ServiceKeys, keys: &KeyChanges<'_>) {
    for (key, text) in keys {
        match text {
            Some(text) => drop(all.0.insert((*key).to_owned(), value(text))),
            None => drop(all.0.remove(*key)),
        }
    }
}

/// A value as it is written on a command line: texts need no quotes.
fn value(text: &str) -> Value {
    let is_toml = text.starts_with(['[', '{']) || text == "true" || text == "false";
    let parsed = |text: &str| -> Option<Value> {
        let mut document: serde_json::Map<String, Value> = toml::from_str(&format!("value = {text}")).ok()?;
        document.remove("value")
    };
    let number = || text.parse::<i64>().ok().map(Value::from);
    if is_toml { parsed(text) } else { number() }.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_need_no_quotes_unless_they_are_composed() {
        let cases = [
            ("tcp", json!("tcp")),
            ("251", json!(251)),
            ("30s", json!("30s")),
            ("true", json!(true)),
            ("{kind=\"tcp\",rise=2}", json!({"kind": "tcp", "rise": 2})),
            ("[{address=\"10.0.1.1:80\"}]", json!([{"address": "10.0.1.1:80"}])),
            ("[2001:db8::1]:80", json!("[2001:db8::1]:80")),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_changed_added_and_taken_away() {
        let mut all: ServiceKeys =
            serde_json::from_value(json!({"name": "web", "mode": "ipip", "slow_start": "5s"})).unwrap();
        let keys = [("mode", "gue"), ("slow_start", ""), ("gue_port", "6081")];
        change(&mut all, &key_changes(&keys.map(|(key, value)| (key.to_owned(), value.to_owned()))).unwrap());
        assert_eq!(Value::Object(all.0), json!({"name": "web", "mode": "gue", "gue_port": 6081}));
    }
}
