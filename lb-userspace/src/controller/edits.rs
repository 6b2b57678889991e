//! An operator's change on paper: the services as they are wanted after it, or why it cannot be.

use std::sync::Arc;

use super::{Change, ChangeError, ListChange};
use crate::config::{
    check_backend, check_limits, check_shared_limits, check_together, check_windows, show_duration,
};
use crate::model::{AdminState, Backend, Desired, Endpoint, Limit, Service, Services};
use crate::names::instead;
use crate::view::BackendState;

/// A change on paper.
#[derive(Clone, Debug)]
pub(crate) struct Edited {
    /// All that is wanted after it.
    pub(crate) desired: Desired,
    /// The change in words.
    pub(crate) summary: String,
    /// The service whose slots it may move; `None` if it is about others than one, or about none.
    pub(super) concerned: Option<String>,
    /// A backend that is to take traffic, and its service.
    pub(super) newcomer: Option<(String, Endpoint)>,
}

impl Edited {
    /// A whole new state of things.
    pub(crate) fn whole(desired: Desired, summary: String) -> Self {
        Self { desired, summary, concerned: None, newcomer: None }
    }

    /// After an operator's change.
    pub(crate) fn by(desired: &Desired, change: Change) -> Result<Self, ChangeError> {
        let newcomer = match &change {
            Change::AddBackend { service, backend } => Some((service.clone(), backend.endpoint)),
            Change::SetState { service, endpoint, state: AdminState::Ready } => {
                Some((service.clone(), *endpoint))
            }
            _ => None,
        };
        let moves_slots = !matches!(change, Change::SetLimit { .. } | Change::RemoveLimit { .. });
        let concerned = change.service().filter(|_| moves_slots).map(str::to_owned);
        let (services, summary) = edited(&desired.services, change)?;
        let desired = Desired { services, lists: Arc::clone(&desired.lists) };
        Ok(Self { desired, summary, concerned, newcomer })
    }

    /// After a change of a list.
    pub(crate) fn by_list(desired: &Desired, change: &ListChange) -> Result<Self, ChangeError> {
        let (lists, summary) = change.edited(&desired.lists)?;
        // Lists that stay as they are are not to be filled anew.
        let lists = if lists == *desired.lists { Arc::clone(&desired.lists) } else { lists.into() };
        Ok(Self::whole(Desired { services: desired.services.clone(), lists }, summary))
    }
}

/// The services after a change, and the change in words.
fn edited(services: &Services, change: Change) -> Result<(Services, String), ChangeError> {
    let mut services = services.clone();
    let summary = match change {
        Change::AddService(service) => add_service(&mut services, *service)?,
        Change::SetService(service) => {
            let name = service.name.clone();
            *service_mut(&mut services, &name)? = *service;
            format!("service {name} set")
        }
        Change::RemoveService { service: name } => {
            let removed = services.remove(&name);
            let backends = removed.ok_or_else(|| no_service(&services, &name))?.backends.len();
            format!("service {name} removed with {backends} backends")
        }
        Change::AddBackend { service: name, backend } => {
            let summary = add_backend(service_mut(&mut services, &name)?, backend)?;
            let refused = |error| ChangeError::Refused(format!("service {name}: {error}"));
            check_together(services.values(), &name).map_err(refused)?;
            summary
        }
        Change::RemoveBackend { service: name, endpoint } => {
            let service = service_mut(&mut services, &name)?;
            let position = position(service, endpoint)?;
            service.backends.remove(position);
            format!("{name}: backend {endpoint} removed")
        }
        Change::SetWeight { service: name, endpoint, weight } => {
            let service = service_mut(&mut services, &name)?;
            let position = position(service, endpoint)?;
            let before = std::mem::replace(&mut service.backends[position].weight, weight);
            format!("{name}: backend {endpoint} weight {} -> {}", before.0, weight.0)
        }
        Change::SetState { service: name, endpoint, state } => {
            let service = service_mut(&mut services, &name)?;
            let position = position(service, endpoint)?;
            service.backends[position].admin = state;
            format!("{name}: backend {endpoint} {}", state_in_words(service, state))
        }
        Change::SetLimit { service, limit } => set_limit(&mut services, service.as_deref(), limit)?,
        Change::RemoveLimit { service, name } => remove_limit(&mut services, service.as_deref(), &name)?,
    };
    Ok((services, summary))
}

/// The service of a name, to be changed.
fn service_mut<'s>(services: &'s mut Services, name: &str) -> Result<&'s mut Service, ChangeError> {
    // What to say of an unknown name is a look at all of them, which is for nothing if there is no need to say it.
    if !services.contains_key(name) {
        return Err(no_service(services, name));
    }
    services.get_mut(name).ok_or_else(|| ChangeError::NotFound(format!("there is no service {name:?}")))
}

/// Adds a service that is not there yet.
fn add_service(services: &mut Services, service: Service) -> Result<String, ChangeError> {
    let name = service.name.clone();
    if services.contains_key(&name) {
        return Err(ChangeError::Refused(format!(
            "service {name} is there already; `lb service set {name}` changes it"
        )));
    }
    let summary = format!("service {name} added: {} {} {}", service.vip, service.protocol, service.mode);
    services.insert(name, service);
    Ok(summary)
}

/// What a backend does that was put into a state.
fn state_in_words(service: &Service, state: AdminState) -> String {
    match (state, service.drain_timeout(state)) {
        (AdminState::Ready, _) => "is ready".to_owned(),
        (AdminState::Drain { .. }, Some(timeout)) => format!("drains for {}", show_duration(timeout)),
        (AdminState::Drain { .. }, None) => "drains".to_owned(),
        (AdminState::Maintenance, _) => "is in maintenance".to_owned(),
    }
}

/// Adds a backend that is not there yet. It is no way to undo a drain: the weight would be another.
fn add_backend(service: &mut Service, backend: Backend) -> Result<String, ChangeError> {
    let (name, endpoint) = (&service.name, backend.endpoint);
    let refused = |reason: String| ChangeError::Refused(format!("service {name}: {reason}"));
    check_backend(service.vip, service.mode, endpoint).map_err(|error| refused(error.to_string()))?;
    match service.backends.iter().find(|other| other.endpoint == endpoint).map(|other| other.admin) {
        Some(AdminState::Ready) => Err(refused(format!("backend {endpoint} is there already"))),
        Some(state) => Err(refused(format!(
            "backend {endpoint} is there already, in state {}: put it back to work with `lb backend ready {name} {endpoint}`",
            BackendState::from(state).word()
        ))),
        None => {
            let summary = format!("{name}: backend {endpoint} added");
            service.backends.push(backend);
            Ok(summary)
        }
    }
}

/// The limiters of a service's own, or of all services.
fn limits_of<'s>(services: &'s mut Services, owner: Option<&str>) -> Result<&'s mut Vec<Limit>, ChangeError> {
    match owner {
        None => Ok(&mut services.limits),
        Some(name) => service_mut(services, name).map(|service| &mut service.limits),
    }
}

/// Adds a limiter, or puts it in the place of the one of its name.
fn set_limit(services: &mut Services, owner: Option<&str>, limit: Limit) -> Result<String, ChangeError> {
    let limits = limits_of(services, owner)?;
    let words = format!("{}: limiter {}: {}", owner.unwrap_or("all services"), limit.name(), limit.policy());
    let summary = if let Some(other) = limits.iter_mut().find(|other| other.name() == limit.name()) {
        let before = std::mem::replace(other, limit);
        format!("{words} (was {})", before.policy())
    } else {
        limits.push(limit);
        words
    };
    check_all_limits(services)?;
    Ok(summary)
}

/// Checks by the rules of the configuration.
fn check_all_limits(services: &Services) -> Result<(), ChangeError> {
    let of_service = |service: &Service| {
        let conflict = check_limits(service, &services.limits).into_iter().next()?;
        Some(format!("service {}: {}", service.name, conflict.error))
    };
    let shared = check_shared_limits(&services.limits).into_iter().map(|conflict| conflict.error).next();
    let conflict = shared.or_else(|| services.values().find_map(of_service));
    conflict.map_or(Ok(()), |sentence| Err(ChangeError::Refused(sentence)))?;
    let all = services.limiters().map(|(_, limit)| limit);
    check_windows(all).map_err(|error| ChangeError::Refused(error.to_string()))
}

fn remove_limit(services: &mut Services, owner: Option<&str>, name: &str) -> Result<String, ChangeError> {
    let limits = limits_of(services, owner)?;
    let Some(position) = limits.iter().position(|limit| limit.name() == name) else {
        let of = owner.map_or_else(|| "of all services".to_owned(), |owner| format!("of service {owner}"));
        let instead = instead(name, limits.iter().map(Limit::name));
        return Err(ChangeError::NotFound(format!("there is no limiter {name:?} {of}{instead}")));
    };
    limits.remove(position);
    Ok(format!("{}: limiter {name} removed", owner.unwrap_or("all services")))
}

fn position(service: &Service, endpoint: Endpoint) -> Result<usize, ChangeError> {
    let found = service.backends.iter().position(|backend| backend.endpoint == endpoint);
    found.ok_or_else(|| {
        let name = &service.name;
        ChangeError::NotFound(format!(
            "service {name} has no backend {endpoint}; see `lb backend list {name}`"
        ))
    })
}

pub(super) fn no_service(services: &Services, name: &str) -> ChangeError {
    ChangeError::NotFound(format!(
        "there is no service {name:?}{}",
        instead(name, services.keys().map(String::as_str))
    ))
}
