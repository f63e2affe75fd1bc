//! The types and rules of links, users, API keys, events, clicks and jobs. No I/O, no async.

mod api_key;
mod ban;
mod click;
mod event;
mod event_details;
pub mod formula;
mod host;
mod ids;
mod job;
mod link;
mod link_fields;
mod link_search;
mod page;
mod redirect_status;
mod row_cells;
pub mod rules;
mod scope;
mod short_code;
mod stats;
mod stats_range;
mod subject;
mod target;
mod text;
mod upload_name;
mod user;
mod visibility;
mod zone;

pub use api_key::{ApiKey, ApiKeySecret, KeyId, ParseApiKeyError, RandomSourceError, SecretHash};
pub use ban::{BannedCode, BannedHost, MAX_REASON};
pub use click::{ClickKind, ClickValue, PURPOSE_HEADERS, ValueKind, is_speculative};
pub use event::{Event, EventFilter, EventType, NewEvent};
pub use event_details::{EventDetails, ONCE_RULE};
pub use host::{HostError, base_host, host_name, host_spellings};
pub use ids::{BanId, EventId, InvalidId, JobId, LinkId, OutboxId, UploadId, UserId};
pub use job::{
    Job, JobError, JobFilter, JobKind, JobState, Lane, NewJob, OnConflict, RowFormat, RowProblem,
    RowReport,
};
pub use link::{Link, LinkFilter, LinkPatch, NewLink};
pub use link_fields::{FieldInput, FieldSource, LinkAttributePatch, LinkAttributes, LinkField};
pub use link_search::{LinkSearch, LinkSearchError};
pub use page::{
    Cursor, MAX_PAGE_NUMBER, MAX_PAGE_SIZE, Page, PageStart, ParseCursorError, SortKey, TimeSortKey,
};
pub use redirect_status::RedirectStatus;
pub use row_cells::RowCells;
pub use scope::{Scope, Scopes};
pub use short_code::{
    CODE_ALPHABET, GENERATED_CODE_LENGTH, MAX_CODE_LENGTH, ShortCode, ShortCodeError,
    has_code_shape, is_reserved_code,
};
pub use stats::{
    Bucket, Counts, DEFAULT_TOP, Dimension, Interval, MAX_BUCKETS, MAX_TOP, RangeBound, Stats,
    StatsQuery, TopValue,
};
pub use stats_range::{RangeError, StatsRange};
pub use subject::Subject;
pub use target::{MAX_TARGET_BYTES, TargetError, TargetPolicy, TargetUrl};
pub use text::{TextError, bounded_text};
pub use upload_name::UploadName;
pub use user::{Email, EmailError, NewUser, User, UserPatch};
pub use visibility::Visibility;
pub use zone::Zone;
