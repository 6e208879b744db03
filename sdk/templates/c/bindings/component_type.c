// `spend_policy.c` asks for an object file that carries the type of the component. `build` embeds the type with
// `wasm-tools component embed` instead, straight from the WIT, so there is nothing to force into the link.
void __component_type_object_force_link_spend_policy(void);
void __component_type_object_force_link_spend_policy(void) {}
