//! Nothing in, nothing out: a stack has no frames to tell of where a panic aborts.
//!
//! The packaged agent has no tables for unwinding, so a walk over its stack ends where it begins. The standard library
//! has 180 kB of code that would look such frames up in debug information, which is not there either, and links it
//! always; nothing of it remains where the linker sees that the walk calls nobody. Nor is anything ever unwound, so
//! libgcc's library, which is there for nothing else, is neither linked nor in memory.

use std::ffi::{c_int, c_void};
use std::process::abort;

/// The stack ends here (`_URC_END_OF_STACK`).
const END_OF_STACK: c_int = 5;

/// Takes the place of libgcc's walk over the stack.
// SAFETY: with the name comes the signature of the platform's C++ ABI, and a walk that has no frames calls nobody and may
// say so at once.
#[allow(non_snake_case, reason = "it is found by this name")]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Takes the place of what would unwind: the standard library names all of it, and nothing is there to call it.
macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            // SAFETY: whoever calls it, and with whatever, the process ends.
            #[allow(non_snake_case, reason = "it is found by this name")]
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                abort();
            }
        )*
    };
}

never_called! {
    _Unwind_Resume _Unwind_GetDataRelBase _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_SetGR _Unwind_SetIP
}
