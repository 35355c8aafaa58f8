//! Pages for people.

use crate::api::Routes;

/// Logins of people at the pages.
#[derive(Debug, Default)]
pub struct Logins {}

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
}
