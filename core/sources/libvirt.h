/* core/sources/libvirt.h - VMs of libvirt's QEMU driver, by pull-mode backup jobs. */
#pragma once

#include "sources/source.h"

extern const SourceOps libvirt_source_ops;
