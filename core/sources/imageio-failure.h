/* core/sources/imageio-failure.h - why a request to an imageio server failed, in words that do not show its ticket. */
#pragma once

#include "libraries/libcurl-functions.h"
#include "util/reason.h"

/* By the status of its answer and by what the server says there, which is changed. -EACCES: the ticket is not good (any
 * more); -EIO: the server cannot do it; -EPROTO. */
int imageio_fail_status(long status, char *words, const char *ticket, Reason *reterr);

/* By how the transfer ended and by libcurl's words, which are changed. */
int imageio_fail_transfer(CURLcode code, char *words, const char *ticket, Reason *reterr);
