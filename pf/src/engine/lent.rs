//! What the router lends pf for a batch: somebody who is shown what is logged, and its routes.

use std::fmt;

use super::PfCx;
use crate::{log::Logger, route::Routes};

/// What is lent.
#[derive(Default)]
pub(super) struct Lent<'a> {
    pub(super) logger: Option<&'a mut dyn Logger>,
    pub(super) routes: Option<&'a dyn Routes>,
}

impl fmt::Debug for Lent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lent { logger, routes } = self;
        f.debug_struct("Lent").field("logger", &logger.is_some()).field("routes", &routes.is_some()).finish()
    }
}

impl<'a> PfCx<'a> {
    /// Shows what is logged to somebody.
    #[must_use]
    pub fn show(mut self, logger: &'a mut dyn Logger) -> PfCx<'a> {
        self.lent.logger = Some(logger);
        self
    }

    /// Lets rules ask these routes. Where there are none to ask, every address can be reached.
    #[must_use]
    pub fn ask(mut self, routes: &'a dyn Routes) -> PfCx<'a> {
        self.lent.routes = Some(routes);
        self
    }
}
