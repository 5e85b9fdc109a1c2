//! The routes and their description, from one table: what is served is what the OpenAPI document says.
//!
//! A route is entered with its handler, and what the handler takes and answers is read off its types: nothing can be served
//! that is not described, nor described otherwise than it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::handler::Handler;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use schemars::generate::SchemaSettings;
use schemars::transform::{ReplaceBoolSchemas, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use weir_channel::id::RoomId;

use super::answer::Created;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params, PeerPath};
use super::named::{Named, Of, OfWith};
use super::state::App;

/// Routes, and what is said of them.
pub(super) struct Api {
    router: Router<Arc<App>>,
    schemas: Schemas,
    /// By path, then by method.
    paths: BTreeMap<&'static str, Map<String, Value>>,
}

impl Api {
    /// No route.
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            schemas: Schemas::new(),
            paths: BTreeMap::new(),
        }
    }

    /// Adds a route. `method` is the word for what `filter` lets through.
    pub(super) fn enter<H, T, D>(
        mut self,
        filter: MethodFilter,
        method: &str,
        path: &'static str,
        summary: &str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<App>> + Described<D>,
        T: 'static,
    {
        let method = method.to_lowercase();
        let mut operation = Operation::default();
        H::describe(&mut operation, &mut self.schemas);
        let described = operation.describe(&method, path, summary);
        self.paths.entry(path).or_default().insert(method, described);
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    /// The routes to serve, and the document.
    pub(super) fn finish(mut self) -> (Router<Arc<App>>, Value) {
        let refusal = self.schemas.answer::<ErrorBody>();
        let mut document = json!({
            "openapi": "3.1.1",
            "info": {
                "title": "Weir",
                "description": "The control interface of a Weir media server; docs/api.md explains it with examples.",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "servers": [{"url": "/"}],
            // The Unix socket asks for none.
            "security": [{"token": []}, {}],
            "paths": self.paths,
            "components": {
                "schemas": self.schemas.answers.take_definitions(true),
                "responses": {
                    "Refusal": {
                        "description": "The request was refused; `error.code` gives the reason.",
                        "content": {"application/json": {"schema": refusal}},
                    },
                },
                "securitySchemes": {"token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The operators' token, or an access token with the claim `admin`; on the routes of WHIP and WHEP \
                                    the clients' token, or an access token for the room.",
                }},
            },
        });
        unlink(&mut document);
        (self.router, document)
    }
}

/// The schemas of what is taken and of what is answered. The same type can differ in the two: a member with a default may be
/// left out of a request, and is there in every answer.
pub(super) struct Schemas {
    /// Each type once, by reference.
    answers: SchemaGenerator,
    /// Each written out where it is used, so that no name means two things.
    bodies: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.transforms.push(Box::new(anything_as_object()));
        });
        let inlined = settings.clone().with(|settings| settings.inline_subschemas = true);
        Self {
            answers: settings.for_serialize().into_generator(),
            bodies: inlined.for_deserialize().into_generator(),
        }
    }

    fn answer<T: JsonSchema>(&mut self) -> Value {
        as_object(self.answers.subschema_for::<T>())
    }

    fn body<T: JsonSchema>(&mut self) -> Value {
        as_object(self.bodies.subschema_for::<T>())
    }
}

/// "Anything" as `{}` instead of `true`, which means the same (JSON Schema 2020-12 §4.3.2) but is more than some generators of
/// clients read. `additionalProperties` stays: there everybody knows it.
fn anything_as_object() -> ReplaceBoolSchemas {
    let mut transform = ReplaceBoolSchemas::default();
    transform.skip_additional_properties = true;
    transform
}

/// A schema that the generator does not keep among its definitions, to which it applies no transform.
fn as_object(mut schema: Schema) -> Value {
    anything_as_object().transform(&mut schema);
    schema.to_value()
}

/// The type of the body of a request with this method (in lower case) to this path; `None` if it has none.
type TextBody = fn(&str, &str) -> Option<&'static str>;

/// What a handler takes and answers.
#[derive(Default)]
pub(super) struct Operation {
    /// The schemas of the path's parameters, in their order.
    path_parameters: Vec<Value>,
    query_parameters: Vec<Value>,
    body: Option<Value>,
    /// The type of a body that is text, by method and path.
    text_body: Option<TextBody>,
    responses: Map<String, Value>,
}

impl Operation {
    /// An answer with a status.
    fn answer(&mut self, status: StatusCode, content_type: &str, schema: Value) {
        let description = status.canonical_reason().unwrap_or_default();
        let response = json!({"description": description, "content": {content_type: {"schema": schema}}});
        self.responses.insert(status.as_str().to_owned(), response);
    }

    /// An answer with a status, of text or of nothing.
    pub(super) fn answer_as(&mut self, status: StatusCode, content_type: Option<&str>, schema: Value) {
        match content_type {
            Some(content_type) => self.answer(status, content_type, schema),
            None => {
                let description = status.canonical_reason().unwrap_or_default();
                self.responses
                    .insert(status.as_str().to_owned(), json!({ "description": description }));
            }
        }
    }

    /// Every refusal is of this type.
    pub(super) fn fails_with<T: JsonSchema>(&mut self, content_type: &str, schemas: &mut Schemas) {
        let schema = schemas.answer::<T>();
        let response = json!({
            "description": "The request was refused; `code` gives the reason.",
            "content": {content_type: {"schema": schema}},
        });
        self.responses.insert("default".to_owned(), response);
    }

    /// The body is text of a type that follows from the route; paths name what they name by text.
    pub(super) fn takes_text(&mut self, text_body: TextBody, schemas: &mut Schemas) {
        self.text_body = Some(text_body);
        let text = schemas.body::<String>();
        self.path_parameters.extend(vec![text; PATH_PARAMETERS_MAX]);
    }

    fn can_be_refused(&mut self) {
        let refusal = json!({"$ref": "#/components/responses/Refusal"});
        self.responses.insert("default".to_owned(), refusal);
    }

    fn describe(self, method: &str, path: &str, summary: &str) -> Value {
        let names = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = names
            .zip(self.path_parameters)
            .map(|(name, schema)| json!({"name": name, "in": "path", "required": true, "schema": schema}));
        let parameters: Vec<Value> = in_path.chain(self.query_parameters).collect();
        let mut described = json!({
            "operationId": operation_id(method, path),
            "summary": summary,
            "parameters": parameters,
            "responses": self.responses,
        });
        if let Some(schema) = self.body {
            // A body is needed if anything in it is.
            let required = schema["required"].as_array().is_some_and(|names| !names.is_empty());
            described["requestBody"] =
                json!({"required": required, "content": {"application/json": {"schema": schema}}});
        }
        if let Some(content_type) = self.text_body.and_then(|text_body| text_body(method, path)) {
            let schema = match content_type {
                "application/json" => json!({}),
                _ => json!({"type": "string"}),
            };
            described["requestBody"] = json!({"required": true, "content": {content_type: {"schema": schema}}});
        }
        described
    }
}

/// The most parameters of a path.
const PATH_PARAMETERS_MAX: usize = 3;

/// `postRoomsByIdTransports`
fn operation_id(method: &str, path: &str) -> String {
    let mut id = method.to_owned();
    for part in path.split(['/', '-', '.']).filter(|part| !part.is_empty()) {
        let (prefix, word) = match part.strip_prefix('{') {
            Some(name) => ("By", name.trim_end_matches('}')),
            None => ("", part),
        };
        id += prefix;
        let mut chars = word.chars();
        id.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        id += chars.as_str();
    }
    id
}

/// Takes the marks of links to other items out of descriptions, which come from the types' documentation.
fn unlink(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "description" => *text = unlinked(text),
                    value => unlink(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unlink),
        _ => {}
    }
}

/// ``See [`Room`](super::Room).`` becomes ``See `Room`.``
fn unlinked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("[`") {
        out += &rest[..start];
        let link = &rest[start + 1..];
        let Some(end) = link.find(']') else {
            rest = &rest[start..];
            break;
        };
        out += &link[..end];
        rest = &link[end + 1..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some(end) = target.find(')')
        {
            rest = &target[end + 1..];
        }
    }
    out + rest
}

/// A handler whose arguments and answer say what they are.
pub(super) trait Described<Arguments> {
    /// Adds what it takes and answers.
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

macro_rules! described {
    ($($part:ident),*) => {
        impl<F, R, A, $($part),*> Described<($($part,)*)> for F
        where
            F: Fn($($part),*) -> R,
            R: Future<Output = A>,
            A: Answer,
            $($part: Part),*
        {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                $($part::describe(operation, schemas);)*
                A::describe(operation, schemas);
            }
        }
    };
}

described!();
described!(P1);
described!(P1, P2);
described!(P1, P2, P3);
described!(P1, P2, P3, P4);
described!(P1, P2, P3, P4, P5);

/// A part of a request.
pub(super) trait Part {
    /// Adds what it reads. What is of no interest to callers adds nothing.
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

impl<S> Part for State<S> {}

impl Part for HeaderMap {}

impl<T: JsonSchema> Part for Id<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.path_parameters.push(schemas.body::<T>());
    }
}

impl Part for PeerPath {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        <Id<RoomId> as Part>::describe(operation, schemas);
        <Id<String> as Part>::describe(operation, schemas);
    }
}

impl<T: Named<Path: Part>> Part for Of<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::Path::describe(operation, schemas);
        operation.can_be_refused();
    }
}

impl<T: Named<Path: Part>, B: JsonSchema> Part for OfWith<T, B> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        Of::<T>::describe(operation, schemas);
        Body::<B>::describe(operation, schemas);
    }
}

impl<T: JsonSchema> Part for Body<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.body = Some(schemas.body::<T>());
    }
}

impl<T: JsonSchema> Part for Params<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.body::<T>();
        let properties = schema["properties"].as_object().into_iter().flatten();
        operation
            .query_parameters
            .extend(properties.map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema})));
    }
}

/// An answer.
pub(super) trait Answer {
    /// Adds the statuses it can have, and what comes with each.
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answer(StatusCode::OK, "application/json", schemas.answer::<T>());
    }
}

impl<T: JsonSchema> Answer for Created<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answer(StatusCode::CREATED, "application/json", schemas.answer::<T>());
    }
}

impl<A: Answer> Answer for Result<A, ApiError> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        A::describe(operation, schemas);
        operation.can_be_refused();
    }
}

/// An answer that says the same with 200, when all is well, and with 503.
pub(super) struct WellOrNot<T>(pub(super) StatusCode, pub(super) T);

impl<T: serde::Serialize> IntoResponse for WellOrNot<T> {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl<T: JsonSchema> Answer for WellOrNot<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        for status in [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE] {
            operation.answer(status, "application/json", schemas.answer::<T>());
        }
    }
}

/// A stream of server-sent events.
pub(super) struct Events(pub(super) Response);

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answer for Events {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.answer(StatusCode::OK, "text/event-stream", json!({"type": "string"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_after_their_routes() {
        assert_eq!(operation_id("get", "/"), "get");
        assert_eq!(
            operation_id("post", "/rooms/{id}/transports"),
            "postRoomsByIdTransports"
        );
        assert_eq!(
            operation_id("put", "/producers/{id}/preferred-profile"),
            "putProducersByIdPreferredProfile"
        );
    }

    #[test]
    fn descriptions_have_no_links() {
        assert_eq!(
            unlinked("See [`Room`](super::Room) and [`Id`]."),
            "See `Room` and `Id`."
        );
        assert_eq!(unlinked("`[1]` [`open"), "`[1]` [`open");
        assert_eq!(unlinked("[`a`](b"), "`a`(b");
    }
}
