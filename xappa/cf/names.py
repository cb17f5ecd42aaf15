"""Names of quantities and coordinates in the archives that people use, as data.

Every row of `KNOWN` gives one quantity: its CF standard name, canonical units, the height above
ground that its short names imply, and the names under which archives store it (GRIB short names,
cfgrib variable names, long names of the Climate Data Store and of WeatherBench, CMIP names). All
names are in lower case. Two rows may share a name (``z``); units tell them apart.

References
----------
CF standard name table, https://cfconventions.org/standard-names.html; ECMWF parameter database,
https://codes.ecmwf.int/grib/param-db; CMIP6 data request.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "COORDINATE_NAMES",
    "KNOWN",
    "NEAR_SURFACE",
    "STANDARD_NAME_ALIASES",
    "STATION_NAMES",
    "Known",
]


@dataclass(frozen=True)
class Known:
    """One quantity and the names that archives give it.

    Parameters
    ----------
    standard_name
        CF standard name.
    units
        Canonical CF units.
    aliases
        Names in lower case.
    height
        Metres above ground implied by the aliases, or None.
    surface
        True where the quantity exists at one level only, whatever a scalar level coordinate says.
    """

    standard_name: str
    units: str
    aliases: tuple[str, ...]
    height: float | None = None
    surface: bool = False


def _row(
    standard_name: str,
    units: str,
    aliases: str,
    height: float | None = None,
    surface: bool = False,
) -> Known:
    return Known(
        standard_name, units, tuple(aliases.split()), height, surface or height is not None
    )


KNOWN: tuple[Known, ...] = (
    # near the ground
    _row("air_temperature", "K", "t2m 2t tas 2m_temperature 2_metre_temperature t_2m temp2m", 2.0),
    _row("air_temperature", "K", "tasmax mx2t maximum_2m_temperature_since_previous_post_processing"
         " tasmin mn2t minimum_2m_temperature_since_previous_post_processing", 2.0),
    _row("dew_point_temperature", "K", "d2m 2d 2m_dewpoint_temperature tdps"
         " 2_metre_dewpoint_temperature", 2.0),
    _row("relative_humidity", "1", "r2 2r hurs 2m_relative_humidity"
         " 2_metre_relative_humidity", 2.0),
    _row("specific_humidity", "1", "q2m sh2 2sh huss 2m_specific_humidity", 2.0),
    _row("eastward_wind", "m s-1", "u10 10u u10m uas 10m_u_component_of_wind"
         " 10_metre_u_wind_component", 10.0),
    _row("northward_wind", "m s-1", "v10 10v v10m vas 10m_v_component_of_wind"
         " 10_metre_v_wind_component", 10.0),
    _row("eastward_wind", "m s-1", "u100 100u 100m_u_component_of_wind"
         " 100_metre_u_wind_component", 100.0),
    _row("northward_wind", "m s-1", "v100 100v 100m_v_component_of_wind"
         " 100_metre_v_wind_component", 100.0),
    _row("wind_speed", "m s-1", "si10 10si sfcwind 10m_wind_speed ws10 10_metre_wind_speed", 10.0),
    _row("wind_from_direction", "degree", "wdir10 10wdir 10m_wind_direction", 10.0),
    _row("wind_speed_of_gust", "m s-1", "fg10 10fg i10fg gust wsgsmax"
         " instantaneous_10m_wind_gust 10m_wind_gust_since_previous_post_processing", 10.0),
    # at the surface and of the whole column
    _row("surface_air_pressure", "Pa", "sp ps surface_pressure surface_air_pressure",
         surface=True),
    _row("air_pressure_at_mean_sea_level", "Pa", "msl psl prmsl mslp mslet slp"
         " mean_sea_level_pressure pressure_reduced_to_msl", surface=True),
    _row("lwe_thickness_of_precipitation_amount", "m", "tp total_precipitation"
         " total_precipitation_6hr total_precipitation_12hr total_precipitation_24hr",
         surface=True),
    _row("precipitation_amount", "kg m-2", "tp total_precipitation apcp", surface=True),
    _row("precipitation_flux", "kg m-2 s-1", "pr tprate mtpr avg_tprate prate"
         " mean_total_precipitation_rate", surface=True),
    _row("lwe_precipitation_rate", "m s-1", "pr tprate total_precipitation_rate", surface=True),
    _row("sea_surface_temperature", "K", "sst tos sea_surface_temperature", surface=True),
    _row("sea_ice_area_fraction", "1", "siconc ci sic sea_ice_cover sea_ice_area_fraction"
         " sea_ice_concentration", surface=True),
    _row("surface_temperature", "K", "skt ts skin_temperature", surface=True),
    _row("land_binary_mask", "1", "lsm sftlf land_sea_mask land_binary_mask", surface=True),
    _row("surface_altitude", "m", "orog orography hsurf", surface=True),
    _row("lwe_thickness_of_surface_snow_amount", "m", "sd snow_depth", surface=True),
    _row("surface_snow_thickness", "m", "sde snd", surface=True),
    _row("cloud_area_fraction", "1", "tcc clt total_cloud_cover", surface=True),
    _row("low_type_cloud_area_fraction", "1", "lcc low_cloud_cover", surface=True),
    _row("medium_type_cloud_area_fraction", "1", "mcc medium_cloud_cover", surface=True),
    _row("high_type_cloud_area_fraction", "1", "hcc high_cloud_cover", surface=True),
    _row("atmosphere_mass_content_of_water_vapor", "kg m-2", "tcwv prw pwat tpw"
         " total_column_water_vapour total_column_vertically_integrated_water_vapour",
         surface=True),
    _row("atmosphere_mass_content_of_water", "kg m-2", "tcw total_column_water", surface=True),
    _row("atmosphere_boundary_layer_thickness", "m", "blh zmla boundary_layer_height",
         surface=True),
    _row("atmosphere_convective_available_potential_energy", "J kg-1", "cape"
         " convective_available_potential_energy", surface=True),
    _row("surface_downwelling_shortwave_flux_in_air", "W m-2", "rsds msdwswrf avg_sdswrf"
         " mean_surface_downward_short_wave_radiation_flux", surface=True),
    _row("surface_downwelling_longwave_flux_in_air", "W m-2", "rlds msdwlwrf avg_sdlwrf"
         " mean_surface_downward_long_wave_radiation_flux", surface=True),
    _row("toa_outgoing_longwave_flux", "W m-2", "rlut olr", surface=True),
    _row("toa_incoming_shortwave_flux", "W m-2", "rsdt", surface=True),
    _row("surface_upward_sensible_heat_flux", "W m-2", "hfss", surface=True),
    _row("surface_upward_latent_heat_flux", "W m-2", "hfls", surface=True),
    # in the free atmosphere
    _row("air_temperature", "K", "t ta temp temperature air_temperature tair"),
    _row("eastward_wind", "m s-1", "u ua uwnd u_component_of_wind eastward_wind"),
    _row("northward_wind", "m s-1", "v va vwnd v_component_of_wind northward_wind"),
    _row("lagrangian_tendency_of_air_pressure", "Pa s-1", "w wap omega vertical_velocity"
         " lagrangian_tendency_of_air_pressure"),
    _row("upward_air_velocity", "m s-1", "w wa wz vertical_velocity geometric_vertical_velocity"
         " upward_air_velocity"),
    _row("wind_speed", "m s-1", "ws wspd wind_speed"),
    _row("wind_from_direction", "degree", "wdir wind_direction wind_from_direction"),
    _row("geopotential", "m2 s-2", "z phi geopotential"),
    _row("geopotential_height", "m", "gh zg z hgt geopotential_height"),
    _row("specific_humidity", "1", "q hus shum specific_humidity"),
    _row("relative_humidity", "1", "r hur rh rhum relative_humidity"),
    _row("humidity_mixing_ratio", "1", "mr mixing_ratio humidity_mixing_ratio"),
    _row("dew_point_temperature", "K", "dpt td dewpoint dew_point dewpoint_temperature"
         " dew_point_temperature"),
    _row("virtual_temperature", "K", "tv vtmp virtual_temperature"),
    _row("air_potential_temperature", "K", "pt theta potential_temperature"
         " air_potential_temperature"),
    _row("air_pressure", "Pa", "pres pressure air_pressure"),
    _row("divergence_of_wind", "s-1", "d div divergence"),
    _row("atmosphere_relative_vorticity", "s-1", "vo vor vorticity relative_vorticity"),
    _row("ertel_potential_vorticity", "K m2 kg-1 s-1", "pv potential_vorticity"),
    _row("mass_fraction_of_cloud_ice_in_air", "1", "ciwc cli specific_cloud_ice_water_content"),
    _row("mass_fraction_of_cloud_liquid_water_in_air", "1", "clwc clw"
         " specific_cloud_liquid_water_content"),
    _row("mass_fraction_of_rain_in_air", "1", "crwc specific_rain_water_content"),
    _row("mass_fraction_of_snow_in_air", "1", "cswc specific_snow_water_content"),
    _row("cloud_area_fraction_in_atmosphere_layer", "1", "cc cl fraction_of_cloud_cover"),
    _row("mass_fraction_of_ozone_in_air", "1", "o3 ozone_mass_mixing_ratio"),
)  # fmt: skip

STANDARD_NAME_ALIASES: dict[str, str] = {
    "air_pressure_at_sea_level": "air_pressure_at_mean_sea_level",
    "sea_ice_cover": "sea_ice_area_fraction",
    "surface_pressure": "surface_air_pressure",
    "land_sea_mask": "land_binary_mask",
    "dew_point": "dew_point_temperature",
    "vertical_air_velocity_expressed_as_tendency_of_pressure": (
        "lagrangian_tendency_of_air_pressure"
    ),
    "atmosphere_water_vapor_content": "atmosphere_mass_content_of_water_vapor",
    "atmosphere_cloud_ice_content": "atmosphere_mass_content_of_cloud_ice",
    "wind_gust": "wind_speed_of_gust",
    "sea_surface_skin_temperature": "sea_surface_temperature",
}
"""Former and wrong standard names that are in use, and what the CF table calls them today."""

NEAR_SURFACE: frozenset[str] = frozenset(
    row.standard_name for row in KNOWN if row.height is not None
)
"""Standard names whose quantity may lie at a height above ground."""

COORDINATE_NAMES: dict[str, tuple[str, ...]] = {
    "latitude": ("latitude", "lat", "lats", "nav_lat", "xlat", "ylat", "latitudes"),
    "longitude": ("longitude", "lon", "lons", "long", "nav_lon", "xlong", "xlon", "longitudes"),
    "time": ("time", "valid_time", "datetime", "date", "time_counter", "valid_date", "times"),
    "vertical": (
        "level",
        "plev",
        "pressure",
        "pressure_level",
        "isobaricinhpa",
        "isobaricinpa",
        "isobaric",
        "lev",
        "levels",
        "air_pressure",
        "pres",
        "pfull",
        "sigma",
        "sigma_level",
        "hybrid",
        "model_level",
        "model_level_number",
    ),
    "member": (
        "member",
        "number",
        "ensemble",
        "sample",
        "realization",
        "realisation",
        "ens",
        "members",
        "ensemble_member",
    ),
    "month": ("month",),
}
"""Names, in lower case, by which a coordinate without CF metadata is recognised."""

STATION_NAMES = (
    *("station", "station_id", "station_name", "platform", "platform_id"),
    *("id", "name"),
)
"""Names, in lower case, by which coordinates that tell stations apart are recognised."""
