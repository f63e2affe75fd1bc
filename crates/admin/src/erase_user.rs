//! `admin erase-user`: deletes a user and all its data.

use linnet_domain::Visibility;
use linnet_store::{ERASURE_DELAY, ErasureCounts, Store};

use crate::{AdminError, EraseUser};

/// Deletes the user if it exists, then its history, and prints the counts.
#[expect(clippy::print_stderr, reason = "the report is for the person at the terminal")]
pub(super) async fn run(store: &Store, arguments: &EraseUser) -> Result<(), AdminError> {
    if store.delete_user(arguments.id, Visibility::All, None).await? {
        eprintln!("user {}: name, address, keys and links deleted", arguments.id);
    } else {
        eprintln!("no user has the id {}: erasing its remaining data", arguments.id);
    }
    eprintln!(
        "waiting {} s for clicks on its links that are on their way",
        ERASURE_DELAY.as_secs()
    );
    tokio::time::sleep(ERASURE_DELAY).await;
    let ErasureCounts { links, events, clicks, roll_ups } =
        store.erase_user_history(arguments.id).await?;
    eprintln!(
        "erased {clicks} clicks, {roll_ups} roll-up rows and {events} events of {links} links"
    );
    Ok(())
}
