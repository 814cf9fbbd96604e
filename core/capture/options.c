#include "capture/options.h"

const char *capture_wish_name(CaptureWish wish) {
        switch (wish) {
        case CAPTURE_FULL: return "full";
        case CAPTURE_INCREMENTAL: return "incremental";
        case CAPTURE_DIFFERENTIAL: return "differential";
        case CAPTURE_AUTO: break;
        }
        return "auto";
}
