//! Packets shown to clients.

use super::Daemon;
use crate::{
    capture::CaptureError,
    control::{
        capture::CaptureRequest,
        proto::{RefusalKind, Response},
        socket::{Reply, Session},
    },
};

impl Daemon {
    pub(super) fn capture(&mut self, session: Session, asked: &CaptureRequest) -> Reply {
        let Err(error) = self.captures.open(session, asked, &mut self.router) else { return Reply::Stream };
        let kind = match error {
            CaptureError::Enough => RefusalKind::System,
            CaptureError::Unknown(_) | CaptureError::Snap(_) | CaptureError::Twice => RefusalKind::Usage,
        };
        Reply::Now(Response::refused(kind, error.to_string()))
    }
}
