//! Answers cut to measure: `?fields=` leaves out what nobody asked for, `?limit=` and `?offset=` make pages of lists.
//!
//! One layer does so with the answers of all handlers, by what the API's own description says of them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use form_urlencoded::{Serializer, parse};
use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{KnownFormat, ObjectBuilder, OpenApi, Required, SchemaFormat, Type};

use crate::names::instead;
use crate::view::Problem;

const FIELDS: &str = "fields";
const LIMIT: &str = "limit";
const OFFSET: &str = "offset";
const JSON: &str = "application/json";

/// The header that leads to the page after this one (RFC 8288): as a relative reference it keeps the path and replaces what is
/// behind it.
pub(super) fn next_page(uri: &Uri, limit: usize, offset: u64) -> HeaderMap {
    let mut query = Serializer::new(String::new());
    let kept =
        parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name != LIMIT && name != OFFSET);
    query.extend_pairs(kept).append_pair(LIMIT, &limit.to_string()).append_pair(OFFSET, &offset.to_string());
    let link = format!("<?{}>; rel=\"next\"", query.finish());
    HeaderValue::try_from(link).map(|link| HeaderMap::from_iter([(LINK, link)])).unwrap_or_default()
}

/// Where in an answer the list is that it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    /// Nowhere, or the handler makes the pages.
    None,
    /// It is the answer.
    Whole,
    /// In the only field that the answer has.
    Within(String),
}

/// What is asked for behind the path of a GET, and what its answer is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    /// Names of the parameters, those of the layer among them.
    parameters: Vec<String>,
    /// Names of the answer's fields, or of its elements'; `None` if they can be any.
    fields: Option<Vec<String>>,
    list: List,
}

/// The shape of every GET, by its path.
#[derive(Debug)]
pub(super) struct Shapes(HashMap<String, Shape>);

impl Shapes {
    /// Reads the shapes in a description, and adds to it what the layer takes.
    pub(super) fn describe(document: &mut OpenApi) -> Self {
        let whole = serde_json::to_value(&*document).unwrap_or_default();
        let mut shapes = HashMap::new();
        for (path, item) in &mut document.paths.paths {
            let Some(operation) = &mut item.get else { continue };
            let (shape, new) = shape_of(&whole, &whole["paths"][path]["get"]);
            operation.parameters.get_or_insert_default().extend(new.into_iter().map(Into::into));
            shapes.insert(path.clone(), shape);
        }
        Self(shapes)
    }
}

/// The shape of an operation, and the parameters that it has from now on.
fn shape_of(document: &Value, operation: &Value) -> (Shape, Vec<Parameter>) {
    let declared = operation["parameters"].as_array().into_iter().flatten();
    let in_query = declared.filter(|parameter| parameter["in"] == "query");
    let mut parameters: Vec<String> =
        in_query.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned())).collect();
    let answer = &operation["responses"]["200"]["content"][JSON]["schema"];
    let mut new = Vec::new();
    let mut shape = Shape { parameters: Vec::new(), fields: None, list: List::None };
    if !answer.is_null() {
        let answer = resolve(document, answer);
        let names = fields_of(document, answer);
        let is_list = |schema: &Value| schema["type"] == "array";
        let only = names.as_deref().filter(|names| names.len() == 1).map(|names| names[0].clone());
        if is_list(answer) {
            shape.list = List::Whole;
            shape.fields = fields_of(document, resolve(document, &answer["items"]));
        } else {
            let within = only.filter(|name| is_list(resolve(document, &answer["properties"][name])));
            shape.list = within.map_or(List::None, List::Within);
            shape.fields = names;
        }
        new.push(fields_parameter());
        if parameters.iter().any(|name| name == LIMIT) {
            shape.list = List::None;
        } else if shape.list != List::None {
            new.extend([limit_parameter(), offset_parameter()]);
        }
    }
    parameters.extend(new.iter().map(|parameter| parameter.name.clone()));
    (Shape { parameters, ..shape }, new)
}

/// A schema itself, wherever it is written down.
fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let place = schema["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    place.and_then(|place| document.pointer(place)).unwrap_or(schema)
}

/// Names of an object's fields; `None` if they can be any.
fn fields_of(document: &Value, schema: &Value) -> Option<Vec<String>> {
    let schema = resolve(document, schema);
    let own = schema["properties"].as_object();
    let own = own.map(|own| own.keys().cloned().collect::<Vec<_>>());
    let parts = schema["allOf"].as_array();
    let parts = parts.into_iter().flatten().filter_map(|part| fields_of(document, part));
    parts.chain(own).reduce(|mut all, more| {
        all.extend(more);
        all
    })
}

fn parameter(name: &str, words: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(words))
        .schema(Some(schema.build()))
        .build()
}

fn fields_parameter() -> Parameter {
    let words = "The fields to tell, with commas between them; all of them if absent. Of a list, the fields of its elements.";
    parameter(FIELDS, words, ObjectBuilder::new().schema_type(Type::String))
}

fn limit_parameter() -> Parameter {
    let words = "How many elements to tell at most; all of them if absent. If there are more, the header `link` leads to them. \
                 Pages of one etag are of one list.";
    parameter(LIMIT, words, integer().minimum(Some(1)))
}

fn offset_parameter() -> Parameter {
    parameter(OFFSET, "How many elements to leave out before the first.", integer().minimum(Some(0)))
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
}

/// What is to be left of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    fields: Option<Vec<String>>,
    limit: Option<usize>,
    offset: usize,
}

impl Cut {
    /// Reads a query; the rest is for the handler.
    fn read(shape: &Shape, query: &str) -> Result<(Self, String), String> {
        let mut cut = Self::default();
        let mut rest = Serializer::new(String::new());
        for (name, value) in parse(query.as_bytes()) {
            if !shape.parameters.iter().any(|known| *known == name) {
                let known = shape.parameters.iter().map(String::as_str);
                return Err(format!("there is no parameter {name:?}{}", instead(&name, known)));
            }
            match &*name {
                FIELDS => cut.fields = Some(read_fields(shape, &value)?),
                LIMIT if shape.list != List::None => cut.limit = Some(number(LIMIT, &value, 1)?),
                OFFSET if shape.list != List::None => cut.offset = number(OFFSET, &value, 0)?,
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        Ok((cut, rest.finish()))
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Cuts an answer; says where the next page begins if there is one.
    fn apply(&self, list: &List, answer: &mut Value) -> Option<usize> {
        let next = match list {
            List::None => None,
            List::Whole => self.page(answer),
            List::Within(name) => self.page(&mut answer[name]),
        };
        let Some(fields) = &self.fields else { return next };
        let trim = |value: &mut Value| {
            if let Some(object) = value.as_object_mut() {
                object.retain(|name, _| fields.iter().any(|field| field == name));
            }
        };
        match answer {
            Value::Array(elements) => elements.iter_mut().for_each(trim),
            object => trim(object),
        }
        next
    }

    fn page(&self, list: &mut Value) -> Option<usize> {
        let list = list.as_array_mut()?;
        let begin = self.offset.min(list.len());
        let end = self.limit.map_or(list.len(), |limit| begin.saturating_add(limit).min(list.len()));
        let next = (end < list.len()).then_some(end);
        list.truncate(end);
        list.drain(..begin);
        next
    }
}

fn read_fields(shape: &Shape, value: &str) -> Result<Vec<String>, String> {
    let fields: Vec<String> = value.split(',').map(|name| name.trim().to_owned()).collect();
    let Some(known) = &shape.fields else { return Ok(fields) };
    match fields.iter().find(|field| !known.contains(field)) {
        None => Ok(fields),
        Some(field) => {
            let instead = instead(field, known.iter().map(String::as_str));
            Err(format!("{FIELDS}: there is no field {field:?}{instead}"))
        }
    }
}

/// A number of the format that the description names.
fn number(name: &str, value: &str, least: usize) -> Result<usize, String> {
    let number = value.parse::<i64>().ok().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number >= least);
    number.ok_or_else(|| format!("{name}: {value:?} is no number from {least} on"))
}

/// The layer.
pub(super) async fn cut_to_measure(
    State(shapes): State<Arc<Shapes>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let shape = path.filter(|_| request.method().is_safe()).and_then(|path| shapes.0.get(path));
    let (Some(shape), Some(query)) = (shape, request.uri().query()) else {
        return Ok(next.run(request).await);
    };
    let (cut, rest) = Cut::read(shape, query).map_err(Problem::bad_request)?;
    if cut.is_nothing() {
        return Ok(next.run(request).await);
    }
    let asked = request.uri().clone();
    *request.uri_mut() = with_query(&asked, &rest)?;
    // The answer to a HEAD has nothing that could be cut.
    let has_body = request.method() == Method::GET;
    let response = next.run(request).await;
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == JSON);
    if !has_body || !response.status().is_success() || !is_json {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(Problem::internal)?;
    let mut answer: Value = serde_json::from_slice(&body).map_err(Problem::internal)?;
    if let (Some(offset), Some(limit)) = (cut.apply(&shape.list, &mut answer), cut.limit) {
        parts.headers.extend(next_page(&asked, limit, offset as u64));
    }
    parts.headers.remove(CONTENT_LENGTH);
    Ok((parts, Body::from(answer.to_string())).into_response())
}

fn with_query(uri: &Uri, query: &str) -> Result<Uri, Problem> {
    let text = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    text.parse().map_err(Problem::internal)
}
