//! Receives the body of an upload into a file, by its media type.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{HttpRequest, http::header::CONTENT_TYPE, web};
use futures::StreamExt;
use linnet_protocol::problem_code::ProblemCode;
use serde_json::Map;

use linnet_domain::{RowFormat, UserId};
use linnet_import::source::format_of_media_type;
use linnet_jobs::upload::{self, Upload, UploadArea, UploadError};
use linnet_platform::least_rate::{LeastRate, WINDOW};

use super::{
    super::{
        super::error::{ApiError, body_error},
        fields::{Fields, ONCE_RULE, text_or_null},
    },
    options::Options,
};

/// The maximum size of a form's field other than the file, in bytes.
const MAX_FIELD_BYTES: usize = 1_000;
/// The maximum number of fields of a form, not counting the file.
const MAX_FIELDS: usize = 20;

/// A received upload.
pub(super) struct Body {
    pub(super) upload: Upload,
    /// The format that the media type names.
    pub(super) format: Option<RowFormat>,
    /// The name of the file in a form, from which an unnamed format is guessed; otherwise empty.
    pub(super) name: String,
    /// The options in a form's fields.
    pub(super) options: Options,
}

/// Whether a media type leaves the format open, so that the file decides.
fn is_unspecific(media_type: &str) -> bool {
    media_type.trim().eq_ignore_ascii_case("application/octet-stream")
}

/// Stores the body in the upload area, for its owner. Fails if the body arrives more slowly than its minimum rate.
pub(super) async fn receive(
    request: &HttpRequest,
    payload: web::Payload,
    area: &UploadArea,
    owner: Option<UserId>,
) -> Result<Body, ApiError> {
    let bytes_per_s = area.settings().upload_min_bytes_per_s;
    let (payload, is_too_slow) = LeastRate::new(payload, bytes_per_s);
    let received = receive_payload(request, payload, area, owner).await;
    if is_too_slow.get() {
        return Err(UploadError::TooSlow { bytes_per_s, window_s: WINDOW.as_secs() }.into());
    }
    received
}

async fn receive_payload(
    request: &HttpRequest,
    payload: LeastRate<web::Payload>,
    area: &UploadArea,
    owner: Option<UserId>,
) -> Result<Body, ApiError> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return receive_form(Multipart::new(request.headers(), payload), area, owner).await;
    }
    let format = format_of_media_type(media_type);
    if format.is_none() && !is_unspecific(media_type) {
        return Err(unsupported());
    }
    let upload = area.receive(owner, payload).await?;
    Ok(Body { upload, format, name: String::new(), options: Options::default() })
}

async fn receive_form(
    mut form: Multipart,
    area: &UploadArea,
    owner: Option<UserId>,
) -> Result<Body, ApiError> {
    let mut file = None;
    let mut values = Map::new();
    while let Some(field) = next_field(&mut form).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if file.is_some() {
                return Err(ApiError::invalid("file", "repeated", ONCE_RULE));
            }
            file = Some(receive_file(field, area, owner).await?);
        } else {
            if values.contains_key(&name) {
                return Err(ApiError::invalid(&name, "repeated", ONCE_RULE));
            }
            if values.len() == MAX_FIELDS {
                let rule = format!("must be one of at most {MAX_FIELDS} fields");
                return Err(ApiError::invalid(&name, "repeated", &rule));
            }
            let value = read_value(&name, field).await?;
            values.insert(name, text_or_null(&value));
        }
    }
    let mut fields = Fields::new(values);
    let options = Options::of(&mut fields);
    fields.finish()?;
    let (upload, format, name) =
        file.ok_or_else(|| ApiError::invalid("file", "required", "must be present"))?;
    Ok(Body { upload, format, name, options })
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

/// The file, the format that the media type of its part names, and its name.
async fn receive_file(
    field: Field,
    area: &UploadArea,
    owner: Option<UserId>,
) -> Result<(Upload, Option<RowFormat>, String), ApiError> {
    let format =
        field.content_type().and_then(|media_type| format_of_media_type(media_type.essence_str()));
    let name = field.content_disposition().and_then(|disposition| disposition.get_filename());
    let name = name.unwrap_or_default().to_owned();
    let upload = area.receive(owner, field).await?;
    Ok((upload, format, name))
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
            let rule = format!("must be at most {MAX_FIELD_BYTES} bytes");
            return Err(ApiError::invalid(name, "too_long", &rule));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid(name, "invalid", "must be valid UTF-8"))
}

fn of_form(error: &MultipartError) -> ApiError {
    tracing::debug!(%error, "malformed form");
    let rule = format!("must be a valid multipart form: {error}");
    body_error(ProblemCode::MalformedForm, &rule).into()
}

fn unsupported() -> ApiError {
    let rule = "must have the Content-Type multipart/form-data, text/csv, application/json, \
                application/x-ndjson or application/octet-stream";
    body_error(ProblemCode::UnsupportedMediaType, rule).into()
}
