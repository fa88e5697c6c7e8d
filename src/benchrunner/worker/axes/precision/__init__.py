"""Number formats: what each precision does to parameters, linears and gradients."""
