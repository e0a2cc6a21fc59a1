"""Operators that a program may call: those of classifiers, which compute on tensors and touch nothing else.

An allow-list, by the names of torch's namespace `aten`: what reads or writes files, prints, starts threads,
sets what is global, or takes a tensor's memory as it is, is not on it.
"""

_COMPUTE = """
abs abs_ absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d add add_ addbmm addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv
alias all amax amin aminmax any arange argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d
avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm
broadcast_tensors broadcast_to bucketize cat cdist ceil ceil_ celu celu_ channel_shuffle chunk clamp clamp_
clamp_max clamp_max_ clamp_min clamp_min_ clip clip_ clone concat concatenate constant_pad_nd contiguous
conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copy_ copysign cos
cosh cosine_similarity cummax cummin cumprod cumsum detach detach_ diag diagonal diff div div_ divide dot
dropout dropout_ einsum elu elu_ embedding eq equal erf erf_ erfc exp exp_ expand expand_as expm1 eye
feature_dropout fill fill_ flatten flip float_power floor floor_ floor_divide fmod frac frobenius_norm full
full_like gather ge gelu gelu_ glu grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid
hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ im2col index index_add index_copy index_fill index_put
index_put_ index_select instance_norm isfinite isinf isnan item kthvalue layer_norm le leaky_relu leaky_relu_
lerp lift lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log_ log10 log1p log2
log_sigmoid log_softmax logaddexp logical_and logical_not logical_or logical_xor logsumexp lt masked_fill
masked_fill_ masked_select matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean
median meshgrid min minimum mish mish_ mkldnn_convolution mm movedim mul mul_ multiply mv nan_to_num narrow
native_dropout native_group_norm native_layer_norm ne neg neg_ new_full new_ones new_zeros
nonzero norm norm_except_dim normalize numel one_hot ones ones_like outer pad permute pixel_shuffle
pixel_unshuffle pow pow_ prelu prod quantile rad2deg real reciprocal reflection_pad1d reflection_pad2d relu
relu6 relu6_ relu_ remainder repeat repeat_interleave replication_pad1d replication_pad2d reshape reshape_as
rms_norm roll rot90 round round_ rsqrt rsqrt_ rsub scalar_tensor scaled_dot_product_attention scatter
scatter_add select selu selu_ sigmoid sigmoid_ sign silu silu_ sin sinh size slice softmax softplus
softshrink softsign sort split split_with_sizes sqrt sqrt_ square squeeze stack std std_mean sub sub_
subtract sum swapaxes swapdims t take_along_dim tan tanh tanh_ tensor tensor_split tensordot threshold
threshold_ tile to topk transpose tril triu true_divide trunc type_as unbind unflatten unfold unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d var var_mean
view view_as where zero_ zeros zeros_like sym_size sym_numel sym_stride sym_constrain_range_for_size
_adaptive_avg_pool2d _assert_scalar _assert_tensor_metadata _convolution _local_scalar_dense _log_softmax
_native_multi_head_attention _scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
_shape_as_tensor _softmax
_to_copy _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d
"""
TENSORS = frozenset(_COMPUTE.split())
"""Of tensors: TorchScript and torch.export."""

_LANGUAGE = """
Bool Float FloatImplicit Int IntImplicit ScalarImplicit Size __and__ __contains__ __derive_index __getitem__
__interpolate __is__ __isnot__ __not__ __or__ __range_length __round_to_zero_floordiv __xor__ append cpu cuda
dict dim extend floordiv format get get_device is_contiguous is_floating_point is_scripting items keys len
list device percentFormat insert pop reverse is_nonzero is_complex values warn Delete _set_item
_unwrap_optional center count find gamma index inner join list lower mode replace set sorted title upper
"""
LANGUAGE = frozenset(_LANGUAGE.split())
"""Of numbers, lists and texts, which TorchScript names beside those of tensors."""

_PRIMITIVES = """
NumToTensor RaiseException abs data device dtype id is_cpu is_cuda is_meta is_mkldnn is_nested is_quantized
is_sparse is_sparse_csr itemsize layout max min name nbytes ndim rangelist requires_grad shape type
unchecked_unwrap_optional
"""
COMPILED = frozenset(
    {"ConstantChunk", "TupleIndex", "TupleSlice", "TupleUnpack", "Uninitialized", "unchecked_cast"}
)
"""Of the namespace `prim`, which compiled programs have and no text names as an operator."""

PRIMITIVES = frozenset(_PRIMITIVES.split()) | COMPILED
"""Of the namespace `prim`."""

STRUCTURE = frozenset(
    {"Constant", "DictConstruct", "GetAttr", "If", "ListConstruct", "ListUnpack", "Loop", "TupleConstruct"}
    | {"isinstance"}
)
"""Of the namespace `prim`, which the syntax of a program becomes."""
