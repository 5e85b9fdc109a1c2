//! The attacks for which it matters that IPv6 is used: strangers have as many addresses as they like, and the server's sockets are
//! others.

use crate::arena::{Family, Figures, Site};
use crate::{Scale, comedia, http, ice, ice_tcp};

const fn over(site: Site) -> Site {
    Site {
        family: Family::V6,
        ..site
    }
}

/// The address is not one of the loopback interface's, so that others could reach it.
const TCP: Site = Site {
    options: &["--clients-without-token"],
    ..over(http::TCP)
};

pub(crate) async fn reports_that_name_nobody(scale: Scale) -> Figures {
    comedia::reports_at(scale, over(Site::PLAIN)).await
}

pub(crate) async fn garbage_beside_a_call(scale: Scale) -> Figures {
    comedia::garbage_at(scale, over(Site::PLAIN)).await
}

pub(crate) async fn amplifying_to_a_victim(scale: Scale) -> Figures {
    ice::amplifying_at(scale, over(ice::BROWSERS)).await
}

pub(crate) async fn a_flood_of_valid_checks(scale: Scale) -> Figures {
    ice::valid_checks_at(scale, over(ice::BROWSERS)).await
}

pub(crate) async fn wrong_passwords(scale: Scale) -> Figures {
    ice::wrong_passwords_at(scale, over(ice::BROWSERS)).await
}

pub(crate) async fn crowding_out_a_port(scale: Scale) -> Figures {
    ice_tcp::crowd_out(scale, over(Site::PLAIN)).await
}

pub(crate) async fn heads_that_do_not_end(scale: Scale) -> Figures {
    http::slowly(scale, TCP, http::ENDLESS_HEAD).await
}

pub(crate) async fn guessing_tokens(scale: Scale) -> Figures {
    http::guessing_at(scale, TCP).await
}
