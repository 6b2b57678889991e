//! `lb limit`: limiters listed, shown and changed.

use super::args::{LimitArgs, LimitCommand};
use super::keys::{KeyChanges, key_changes};
use super::{Failure, Screen, block_on, screens};
use crate::client::{Client, ClientError};
use crate::config::{LimitKeys, Scalar};
use crate::view::Applied;

pub(super) fn run(command: &LimitCommand, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let applied: Applied = match command {
        LimitCommand::List { service } => {
            let limits = block_on(client.limits(service.as_deref()))??;
            return screen.show_fitted(&limits[..], screens::limits);
        }
        LimitCommand::Top { service, count } => {
            let limited = block_on(client.limited(service.as_deref(), *count))??;
            return screen.show_fitted(&limited, screens::limited);
        }
        LimitCommand::Show { limit } => {
            let view = block_on(client.limit(owner(limit), &limit.name))??;
            return screen.show(&view, screens::limit);
        }
        LimitCommand::Suggest { service, limiter, quantile } => {
            let suggestions = block_on(client.suggestions(named(service), limiter.as_deref(), *quantile))??;
            return screen.show(&suggestions, |suggestions| screens::suggestions(suggestions));
        }
        LimitCommand::Set { limit, keys } => block_on(set(client, limit, &key_changes(keys)?))??,
        LimitCommand::Remove { limit } => block_on(client.remove_limit(owner(limit), &limit.name))??,
    };
    screen.show(&applied, screens::applied)
}

fn owner(limit: &LimitArgs) -> Option<&str> {
    named(&limit.service)
}

/// The service, unless all are meant.
fn named(service: &str) -> Option<&str> {
    Some(service).filter(|service| *service != "*")
}

/// Changes some keys of the limiter there is, or makes one of them alone.
async fn set(client: &Client, limit: &LimitArgs, keys: &KeyChanges<'_>) -> Result<Applied, ClientError> {
    let present = match client.limit(owner(limit), &limit.name).await {
        Ok(view) => view.settings,
        Err(ClientError::Problem(problem)) if problem.status == 404 => LimitKeys::new(),
        Err(error) => return Err(error),
    };
    client.set_limit(owner(limit), &limit.name, &changed(present, keys)).await
}

fn changed(mut settings: LimitKeys, keys: &KeyChanges<'_>) -> LimitKeys {
    for (key, value) in keys {
        if let Some(value) = value {
            let number = value.parse().map(Scalar::Integer);
            settings.insert((*key).to_owned(), number.unwrap_or_else(|_| Scalar::Text((*value).to_owned())));
        } else {
            settings.remove(*key);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_keys_are_changed_added_and_taken_away() {
        let text = |text: &str| Scalar::Text(text.to_owned());
        let before = LimitKeys::from([
            ("packets".to_owned(), text("1k/s")),
            ("burst".to_owned(), Scalar::Integer(200)),
        ]);
        let keys = [("packets", ""), ("bits", "1Mbit/s"), ("burst", "400")];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let after = LimitKeys::from([
            ("bits".to_owned(), text("1Mbit/s")),
            ("burst".to_owned(), Scalar::Integer(400)),
        ]);
        assert_eq!(changed(before, &key_changes(&keys).unwrap()), after);
    }
}
