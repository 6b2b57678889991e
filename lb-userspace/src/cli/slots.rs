//! `lb slots`: who owns the slots of a service, and what a change would move.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Exit, Failure, Screen, block_on, screens};
use crate::client::Client;
use crate::config::ServiceKeys;
use crate::model::{Endpoint, Weight};

/// Show who owns the slots of a service, and what a change would move.
#[derive(Debug, Subcommand)]
pub enum SlotsCommand {
    /// Show how the slots of a service are shared out, and which are on the move
    #[command(after_help = "Examples:\n  lb slots show web\n  lb slots show web -o json | jq .moving")]
    Show {
        /// The service's name
        service: String,
    },
    /// Tell what a change of backends would move, and change nothing
    #[command(
        after_help = "Examples:\n  lb slots disruption web --add 10.0.1.9:80\n  lb slots disruption web --remove 10.0.1.1:80 \
                      --weight 10.0.1.2:80=50\n\nFlows that are there stay where they are in any case, as long as their \
                      backend can be reached; what moves are slots, and with them new flows."
    )]
    Disruption {
        /// The service's name
        service: String,
        /// A backend that would be added
        #[arg(long, value_name = "ADDRESS:PORT")]
        add: Vec<Endpoint>,
        /// A backend that would be removed
        #[arg(long, value_name = "ADDRESS:PORT")]
        remove: Vec<Endpoint>,
        /// A backend whose weight would be another one
        #[arg(long, value_name = "ADDRESS:PORT=WEIGHT", value_parser = parse_weight)]
        weight: Vec<(Endpoint, Weight)>,
    },
}

fn parse_weight(text: &str) -> Result<(Endpoint, Weight), String> {
    let (endpoint, weight) = text.rsplit_once('=').ok_or("there is no = in it")?;
    let weight = weight.parse().map_err(|_| format!("weight {weight:?} is no number from 0 to 65535"))?;
    Ok((endpoint.parse().map_err(|error| format!("{error}"))?, Weight(weight)))
}

pub(super) fn run(command: &SlotsCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match command {
        SlotsCommand::Show { service } => {
            let slots = block_on(client.slots(service))??;
            screen.show_fitted(&slots, screens::slots)
        }
        SlotsCommand::Disruption { service, add, remove, weight } => {
            if add.is_empty() && remove.is_empty() && weight.is_empty() {
                return Err(Failure::new(Exit::Usage, "say what would change: --add, --remove or --weight"));
            }
            let (mut keys, _) = block_on(client.service(service))??;
            change(&mut keys, add, remove, weight)
                .map_err(|what| Failure::new(Exit::NotFound, format!("service {service} {what}")))?;
            let plan = block_on(client.disruption(service, &keys))??;
            screen.show_fitted(&plan, screens::disruption)
        }
    }
}

/// Changes the backends among a service's keys, or says what they have not, or have already.
fn change(
    keys: &mut ServiceKeys,
    add: &[Endpoint],
    remove: &[Endpoint],
    weights: &[(Endpoint, Weight)],
) -> Result<(), String> {
    let backends = keys.0.entry("backends").or_insert_with(|| Value::Array(Vec::new()));
    let Some(backends) = backends.as_array_mut() else { return Ok(()) };
    let is = |backend: &Value, endpoint: &Endpoint| backend["address"] == endpoint.to_string();
    for endpoint in remove {
        let before = backends.len();
        backends.retain(|backend| !is(backend, endpoint));
        if backends.len() == before {
            return Err(format!("has no backend {endpoint}"));
        }
    }
    for endpoint in add {
        if backends.iter().any(|backend| is(backend, endpoint)) {
            return Err(format!("has a backend {endpoint} already"));
        }
        backends.push(json!({"address": endpoint.to_string()}));
    }
    for (endpoint, Weight(weight)) in weights {
        match backends.iter_mut().find(|backend| is(backend, endpoint)) {
            Some(backend) => backend["weight"] = json!(weight),
            None => return Err(format!("has no backend {endpoint}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_added_removed_and_weighed() {
        let keys = json!({"name": "web", "backends": [
            {"address": "10.0.1.1:80"}, {"address": "10.0.1.2:80", "weight": 7}
        ]});
        let keys = ServiceKeys(keys.as_object().unwrap().clone());
        let [one, two, three] =
            ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"].map(|text| text.parse().unwrap());
        let mut changed = keys.clone();
        change(&mut changed, &[three], &[one], &[(two, Weight(50)), (three, Weight(5))]).unwrap();
        assert_eq!(
            changed.0["backends"],
            json!([{"address": "10.0.1.2:80", "weight": 50}, {"address": "10.0.1.3:80", "weight": 5}])
        );
        let error = change(&mut keys.clone(), &[], &[three], &[]).unwrap_err();
        assert_eq!(error, "has no backend 10.0.1.3:80");
        assert_eq!(
            change(&mut keys.clone(), &[one], &[], &[]).unwrap_err(),
            "has a backend 10.0.1.1:80 already"
        );
        assert_eq!(
            change(&mut keys.clone(), &[], &[], &[(three, Weight(1))]).unwrap_err(),
            "has no backend 10.0.1.3:80"
        );
    }

    #[test]
    fn a_weight_belongs_to_a_backend() {
        assert_eq!(
            parse_weight("[2001:db8::1]:80=5").unwrap(),
            ("[2001:db8::1]:80".parse().unwrap(), Weight(5))
        );
        assert_eq!(parse_weight("10.0.1.1:80").unwrap_err(), "there is no = in it");
        assert_eq!(parse_weight("10.0.1.1:80=x").unwrap_err(), "weight \"x\" is no number from 0 to 65535");
    }
}
