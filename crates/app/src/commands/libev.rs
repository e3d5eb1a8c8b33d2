//! kcptun-libev: its command line under its own name, and running what its file describes.

use std::ffi::OsString;

use fulmar_config::libev::{LibevArgs, LibevArgsError, encode_psk, libev_usage};
use fulmar_config::{LibevInvocation, LibevLoaded, libev_args, libev_from_file};
use fulmar_wire::libev::Method;

use crate::exit::{Exit, note, print};
use crate::persona::KCPTUN_LIBEV;

/// kcptun-libev's command line (section 2). Every failure ends with exit code 1.
pub(crate) fn persona(args: &[OsString]) -> Result<(), Exit> {
    match libev_args(args) {
        Ok(LibevInvocation::Help) => note(&libev_usage(KCPTUN_LIBEV)),
        Ok(LibevInvocation::ListMethods) => {
            let names = Method::SEALED.map(Method::name).join("\n");
            note(&format!("{names}\n"));
        }
        Ok(LibevInvocation::Genpsk(_)) => print(&format!("{}\n", random_psk()?))?,
        Ok(LibevInvocation::Run(args)) => {
            let loaded = libev_from_file(&args.config)?;
            return start_with(Some(args), loaded);
        }
        Err(e) => {
            if e == LibevArgsError::NoConfig {
                note(&libev_usage(KCPTUN_LIBEV));
            }
            return Err(Exit::failed(e.to_string()));
        }
    }
    Ok(())
}

/// Runs what the file describes.
pub(crate) fn start(loaded: LibevLoaded) -> Result<(), Exit> {
    start_with(None, loaded)
}

/// Runs what the file describes, with what the command line adds.
pub(crate) fn start_with(_args: Option<LibevArgs>, _loaded: LibevLoaded) -> Result<(), Exit> {
    Err(Exit::failed(
        "this build does not run configurations of kcptun-libev",
    ))
}

/// A random key as text, for any of the methods.
pub(crate) fn random_psk() -> Result<String, Exit> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|e| Exit::failed(format!("the system gives no randomness: {e}")))?;
    Ok(encode_psk(&key))
}
