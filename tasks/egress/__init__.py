"""Which outbound addresses may be dialled, and the dialling."""
