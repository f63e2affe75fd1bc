//! The body of an upload: by its media type, as it comes.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{HttpRequest, http::header::CONTENT_TYPE, web};
use futures::StreamExt;
use linnet_protocol::{problem::Problem, problem_code::ProblemCode};
use serde_json::{Map, Value};

use linnet_domain::RowFormat;
use linnet_jobs::{
    JobSettings,
    upload::{self, Upload, UploadError},
};

use super::{
    super::{
        super::error::{ApiError, field_error},
        fields::Fields,
    },
    options::Options,
};

/// Longest value of a form's field beside the file, in bytes.
const MAX_FIELD_BYTES: usize = 1_000;
/// Fields of a form beside the file.
const MAX_FIELDS: usize = 20;

/// What has come.
pub(super) struct Body {
    pub(super) upload: Upload,
    pub(super) format: RowFormat,
    /// What a form says beside the file.
    pub(super) options: Options,
}

/// What a media type says of the rows, without its parameters.
fn format_of(media_type: &str) -> Option<RowFormat> {
    Some(match media_type.trim().to_ascii_lowercase().as_str() {
        "text/csv" | "application/csv" | "application/vnd.ms-excel" => RowFormat::Csv,
        "application/json" => RowFormat::Json,
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => RowFormat::NdJson,
        _ => return None,
    })
}

/// Writes the body into the upload area.
pub(super) async fn receive(
    request: &HttpRequest,
    payload: web::Payload,
    settings: &JobSettings,
) -> Result<Body, ApiError> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return receive_form(Multipart::new(request.headers(), payload), settings).await;
    }
    let Some(format) = format_of(media_type) else { return Err(unsupported()) };
    let upload = upload::receive(settings, payload).await?;
    Ok(Body { upload, format, options: Options::default() })
}

async fn receive_form(mut form: Multipart, settings: &JobSettings) -> Result<Body, ApiError> {
    let mut file = None;
    let mut values = Map::new();
    while let Some(field) = next_field(&mut form).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if file.is_some() {
                return Err(of_field("file", "repeated", "is given more than once"));
            }
            file = Some(receive_file(field, settings).await?);
        } else {
            if values.len() == MAX_FIELDS || values.contains_key(&name) {
                return Err(of_field(&name, "repeated", "is one field too many"));
            }
            let value = read_value(&name, field).await?;
            values.insert(name, Value::String(value));
        }
    }
    let mut fields = Fields::new(values);
    let options = Options::of(&mut fields);
    fields.finish()?;
    let (upload, format) =
        file.ok_or_else(|| of_field("file", "required", "is required: a file of rows"))?;
    Ok(Body { upload, format, options })
}

async fn next_field(form: &mut Multipart) -> Result<Option<Field>, ApiError> {
    let field = tokio::time::timeout(upload::IDLE_TIMEOUT, form.next());
    match field.await {
        Err(_) => Err(UploadError::TimedOut.into()),
        Ok(None) => Ok(None),
        Ok(Some(Ok(field))) => Ok(Some(field)),
        Ok(Some(Err(error))) => Err(of_form(&error)),
    }
}

/// A file is CSV unless its part says something else.
async fn receive_file(
    field: Field,
    settings: &JobSettings,
) -> Result<(Upload, RowFormat), ApiError> {
    let format = field.content_type().and_then(|media_type| format_of(media_type.essence_str()));
    let upload = upload::receive(settings, field).await?;
    Ok((upload, format.unwrap_or(RowFormat::Csv)))
}

async fn read_value(name: &str, mut field: Field) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(upload::IDLE_TIMEOUT, field.next()).await {
            Err(_) => return Err(UploadError::TimedOut.into()),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(of_form(&error)),
            Ok(Some(Ok(piece))) => bytes.extend_from_slice(&piece),
        }
        if bytes.len() > MAX_FIELD_BYTES {
            let message = format!("must be at most {MAX_FIELD_BYTES} bytes");
            return Err(of_field(name, "too_long", &message));
        }
    }
    String::from_utf8(bytes).map_err(|_| of_field(name, "invalid", "is not valid UTF-8"))
}

fn of_field(name: &str, code: &'static str, message: &str) -> ApiError {
    Problem::invalid(vec![field_error(name, code, message)]).into()
}

fn of_form(error: &MultipartError) -> ApiError {
    tracing::debug!(%error, "a form could not be read");
    let message = format!("is no valid multipart form: {error}");
    Problem::of(ProblemCode::MalformedForm)
        .detail(format!("body: {message}"))
        .errors(vec![field_error("body", "malformed_form", &message)])
        .into()
}

fn unsupported() -> ApiError {
    let message = "the Content-Type must be multipart/form-data, text/csv, application/json or \
                   application/x-ndjson";
    Problem::of(ProblemCode::UnsupportedMediaType)
        .detail(message)
        .errors(vec![field_error("body", "unsupported_media_type", message)])
        .into()
}
