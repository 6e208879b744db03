//! A component without WASI. The standard library leaves its imports in whatever is linked with it, for what a
//! panic prints; they make a component three modules instead of one, and each decision starts all three.
//!
//! Here the C library's ways out end in a trap instead. A panic is a trap either way, only that it says nothing.

#![expect(unsafe_code, reason = "the linker finds these by the names that the C library calls")]

macro_rules! traps {
    ($($name:ident($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $argument),*) $(-> $answer)? {
                core::arch::wasm32::unreachable()
            }
        )*
    };
}

// Pointers and handles are `i32` in a component.
traps! {
    __wasm_import_environment_get_environment(i32);
    __wasm_import_exit_exit(i32);
    __wasm_import_io_error_error_drop(i32);
    __wasm_import_poll_method_pollable_block(i32);
    __wasm_import_poll_pollable_drop(i32);
    __wasm_import_stderr_get_stderr() -> i32;
    __wasm_import_stdin_get_stdin() -> i32;
    __wasm_import_stdout_get_stdout() -> i32;
    __wasm_import_streams_input_stream_drop(i32);
    __wasm_import_streams_method_output_stream_blocking_flush(i32, i32);
    __wasm_import_streams_method_output_stream_check_write(i32, i32);
    __wasm_import_streams_method_output_stream_subscribe(i32) -> i32;
    __wasm_import_streams_method_output_stream_write(i32, i32, i32, i32);
    __wasm_import_streams_output_stream_drop(i32);
    __wasm_import_terminal_input_terminal_input_drop(i32);
    __wasm_import_terminal_output_terminal_output_drop(i32);
    __wasm_import_terminal_stderr_get_terminal_stderr(i32);
    __wasm_import_terminal_stdin_get_terminal_stdin(i32);
    __wasm_import_terminal_stdout_get_terminal_stdout(i32);
}
